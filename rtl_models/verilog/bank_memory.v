`default_nettype none

// A memory of WORDS words with one write port, with lane enables, and one read port.
//
// The word at `read_addr` is out in the cycle after `read` and holds while `read` is low. A write
// takes effect at the end of its cycle, a read in that cycle still gives the old word. Contents and
// output are unknown until they are written. Lane f is at [f*LANE_W].
module bank_memory #(
    parameter integer WORDS  = 1024,
    parameter integer LANES  = 1,
    parameter integer LANE_W = 8,
    // derived
    parameter integer ADDR_W = WORDS > 1 ? $clog2(WORDS) : 1
) (
    input wire clk,

    // write port
    input wire                    write,
    input wire [       LANES-1:0] write_lanes,
    input wire [      ADDR_W-1:0] write_addr,
    input wire [LANES*LANE_W-1:0] write_data,

    // read port
    input  wire                    read,
    input  wire [      ADDR_W-1:0] read_addr,
    output wire [LANES*LANE_W-1:0] word
);
  logic [LANES*LANE_W-1:0] memory[0:WORDS-1];
  logic [LANES*LANE_W-1:0] word_q;

  assign word = word_q;

  always_ff @(posedge clk) begin
    for (int f = 0; f < LANES; f = f + 1) begin
      if (write && write_lanes[f])
        memory[write_addr][f*LANE_W+:LANE_W] <= write_data[f*LANE_W+:LANE_W];
    end
    if (read) word_q <= memory[read_addr];
  end
endmodule

`default_nettype wire

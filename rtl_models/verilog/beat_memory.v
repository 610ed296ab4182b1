`default_nettype none

// A memory of BEATS bus beats that is read one field at a time.
//
//   in the cycle after `read`:  word = field `place` of beat `beat`, read_addr = {beat, place}
//
// A beat's payload is all of its bits but the highest; it holds PLACES fields of WIDTH bits, place
// 0 in the lowest bits. `place` has ceil(log2(PLACES)) bits, none where PLACES = 1. A write takes
// effect at the end of its cycle, a read in that cycle still gives the old beat. The output holds
// while `read` is low; contents and output are unknown until they are written.
module beat_memory #(
    parameter integer PAYLOAD_W = 63,                                  // bits of a beat but one
    parameter integer WIDTH     = 16,
    parameter integer BEATS     = 64,
    // derived
    parameter integer PLACES    = PAYLOAD_W / WIDTH,
    parameter integer PLACE_W   = $clog2(PLACES),
    parameter integer BEAT_W    = BEATS > 1 ? $clog2(BEATS) : 1,
    parameter integer ADDR_W    = BEATS * PLACES > 1 ? $clog2(BEATS) + PLACE_W : 1
) (
    input wire clk,

    // write port
    input wire                 write,
    input wire [   BEAT_W-1:0] write_beat,
    input wire [PAYLOAD_W-1:0] write_data,

    // read port
    input  wire              read,
    input  wire [ADDR_W-1:0] read_addr,
    output wire [ WIDTH-1:0] word
);
  initial if (WIDTH > PAYLOAD_W) $fatal(1, "WIDTH=%0d exceeds PAYLOAD_W=%0d", WIDTH, PAYLOAD_W);

  logic [PAYLOAD_W-1:0] memory[0:BEATS-1];
  logic [PAYLOAD_W-1:0] beat_q;

  always_ff @(posedge clk) begin
    if (write) memory[write_beat] <= write_data;
    if (read) beat_q <= memory[BEAT_W'(read_addr>>PLACE_W)];
  end

  generate
    if (PLACES > 1) begin : g_place
      logic [PLACE_W-1:0] place_q;
      always_ff @(posedge clk) if (read) place_q <= read_addr[PLACE_W-1:0];

      logic [WIDTH-1:0] field;
      always_comb begin
        field = '0;
        for (int p = 0; p < PLACES; p = p + 1) begin
          if (place_q == PLACE_W'(p)) field = beat_q[p*WIDTH+:WIDTH];
        end
      end
      assign word = field;
    end else begin : g_whole
      assign word = beat_q[WIDTH-1:0];
    end

    if (PAYLOAD_W > PLACES * WIDTH) begin : g_rest
      wire [PAYLOAD_W-PLACES*WIDTH-1:0] unused_rest = beat_q[PAYLOAD_W-1:PLACES*WIDTH];
    end
  endgenerate
endmodule

`default_nettype wire

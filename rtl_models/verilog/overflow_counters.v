`default_nettype none

// Counts the overflow of the results that are read, rows without a pixel excluded (rule D4).
//
//   events    sum of in_events          outputs    results with in_overflow
//
// A group of LANES results counts in the cycle of `read`; the counters show it in the next one.
// Synchronous reset and `flush`: zero.
module overflow_counters #(
    parameter integer LANES    = 1,
    parameter integer EVENTS_W = 16
) (
    input wire clk,
    input wire rst,
    input wire flush,

    input wire                      read,
    input wire [         LANES-1:0] in_exists,
    input wire [         LANES-1:0] in_overflow,
    input wire [LANES*EVENTS_W-1:0] in_events,

    output wire [31:0] events,
    output wire [31:0] outputs
);
  logic [31:0] events_q, outputs_q;
  logic [31:0] events_sum, outputs_sum;

  assign events  = events_q;
  assign outputs = outputs_q;

  always_comb begin
    events_sum  = '0;
    outputs_sum = '0;
    for (int i = 0; i < LANES; i++) begin
      if (in_exists[i]) begin
        events_sum  = events_sum + 32'(in_events[i*EVENTS_W+:EVENTS_W]);
        outputs_sum = outputs_sum + 32'(in_overflow[i]);
      end
    end
  end

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      events_q  <= '0;
      outputs_q <= '0;
    end else if (read) begin
      events_q  <= events_q + events_sum;
      outputs_q <= outputs_q + outputs_sum;
    end
  end
endmodule

`default_nettype wire

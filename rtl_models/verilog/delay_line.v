`default_nettype none

// A word STAGES cycles later. Synchronous reset: all zero.
module delay_line #(
    parameter integer WIDTH  = 1,
    parameter integer STAGES = 1   // at least 1
) (
    input wire clk,
    input wire rst,

    input  wire [WIDTH-1:0] in,
    output wire [WIDTH-1:0] out
);
  logic [STAGES*WIDTH-1:0] stages_q;  // the oldest word highest

  assign out = stages_q[(STAGES-1)*WIDTH+:WIDTH];

  always_ff @(posedge clk) begin
    if (rst) stages_q <= '0;
    else stages_q <= (STAGES * WIDTH)'({stages_q, in});
  end
endmodule

`default_nettype wire

`default_nettype none
// Codes of `pe_ternary` from ternary weights stored in bit planes: weight = plus - minus
// (golden: ternary_planes, whose codes are {minus, plus} of eight weights).
//
// Latency: combinational.
//
//   plus   in   LANES    bit i: weight i is +1
//   minus  in   LANES    bit i: weight i is -1
//   codes  out  LANES*2  weight i at [2*i +: 2], {negative, enable} (rule S2)
//   valid  out  1        0: a weight is in both planes, and the codes mean nothing
module ternary_plane_decoder #(
  parameter integer LANES = 8
) (
  input  wire [LANES-1:0]   plus,
  input  wire [LANES-1:0]   minus,
  output wire [LANES*2-1:0] codes,
  output wire               valid
);

`ifndef SYNTHESIS
  initial if (LANES < 1) $fatal(1, "%m: LANES must be at least 1, not %0d", LANES);
`endif

  genvar i;
  generate
    for (i = 0; i < LANES; i = i + 1) begin : g_lane
      assign codes[2*i+:2] = {minus[i], plus[i] | minus[i]};
    end
  endgenerate

  assign valid = (plus & minus) == '0;

endmodule
`default_nettype wire

`default_nettype none
// Addend of the `ternary` PE (rule S2): the operand, its negative, or nothing.
//
//   code   00  01  11
//   addend  0  +x  -x
//
// Latency: combinational.
//
//   x       in   X_W       signed operand
//   code    in   2         {negative, enable}
//   addend  out  X_W + 1   signed, exact
module pe_ternary #(
  parameter integer X_W = 9
) (
  input  wire signed [X_W-1:0] x,
  input  wire        [1:0]     code,
  output wire signed [X_W:0]   addend
);

  localparam integer ADDEND_W = X_W + 1;

`ifndef SYNTHESIS
  initial if (X_W < 2) $fatal(1, "%m: X_W must be at least 2, not %0d", X_W);
`endif

  wire signed [ADDEND_W-1:0] x_wide = ADDEND_W'(x);
  assign addend = !code[0] ? '0 : code[1] ? -x_wide : x_wide;

endmodule
`default_nettype wire

`default_nettype none
// Addend of the `mac` PE (rule S2): the product of operand and weight.
//
//   addend = x * code                   |addend| <= 2^(X_W-1) * 2^(WEIGHT_W-1)
//
// Latency: combinational.
//
//   x       in   X_W                signed operand
//   code    in   WEIGHT_W           weight, two's complement
//   addend  out  X_W + WEIGHT_W     signed, exact
module pe_mac #(
  parameter integer X_W = 9,
  parameter integer WEIGHT_W = 9
) (
  input  wire signed [X_W-1:0]          x,
  input  wire        [WEIGHT_W-1:0]     code,
  output wire signed [X_W+WEIGHT_W-1:0] addend
);

  localparam integer ADDEND_W = X_W + WEIGHT_W;

`ifndef SYNTHESIS
  initial if (X_W < 2 || WEIGHT_W < 2) $fatal(1, "%m: X_W and WEIGHT_W must be at least 2");
`endif

  assign addend = ADDEND_W'(x) * ADDEND_W'($signed(code));

endmodule
`default_nettype wire

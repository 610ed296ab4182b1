`default_nettype none
// What pe_ternary must equal on codes 00, 01, 11: the operand times 0, 1, -1.
module ternary_reference #(
  parameter integer X_W = 9
) (
  input  wire signed [X_W-1:0] x,
  input  wire        [1:0]     code,
  output wire signed [X_W:0]   addend
);

  // 10 is no code; the PE adds nothing for it.
  wire signed [1:0] trit = code == 2'b10 ? 2'sb00 : $signed(code);
  assign addend = trit * x;

endmodule
`default_nettype wire

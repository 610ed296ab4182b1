`default_nettype none
// Addend of the `shift_add` PE (rule S2): the operand times a sum of TERMS signed powers of two.
//
//   addend = sum over t of enable_t * (-1)^negative_t * (x << shift_t)
//
// TERMS = 1 is the serial PE (one signed digit of a weight a cycle), TERMS = n the parallel one.
// There is no multiplier. Latency: combinational.
//
//   x       in   X_W                  signed operand
//   code    in   TERMS*(2 + SHIFT_W)  term t at [t*(2 + SHIFT_W) +: 2 + SHIFT_W],
//                                     {enable, negative, shift[SHIFT_W]}, msb first
//   addend  out  X_W + 2^SHIFT_W + clog2(TERMS)   signed, exact
module pe_shift_add #(
  parameter integer X_W = 9,
  parameter integer TERMS = 1,
  parameter integer SHIFT_W = 4
) (
  input  wire signed [X_W-1:0]                              x,
  input  wire        [TERMS*(2+SHIFT_W)-1:0]                code,
  output wire signed [X_W+(1<<SHIFT_W)+$clog2(TERMS)-1:0]   addend
);

  localparam integer TERM_W = 2 + SHIFT_W;
  // |term| <= 2^(X_W-1) * 2^(2^SHIFT_W - 1), and both signs must fit: X_W + 2^SHIFT_W bits;
  // a sum of TERMS of them takes clog2(TERMS) more.
  localparam integer ADDEND_W = X_W + (1 << SHIFT_W) + $clog2(TERMS);

`ifndef SYNTHESIS
  initial begin
    if (X_W < 2) $fatal(1, "%m: X_W must be at least 2, not %0d", X_W);
    if (TERMS < 1 || SHIFT_W < 1) $fatal(1, "%m: TERMS and SHIFT_W must be at least 1");
  end
`endif

  wire signed [ADDEND_W-1:0] x_wide = ADDEND_W'(x);
  wire        [TERMS*ADDEND_W-1:0] terms;

  genvar t;
  generate
    for (t = 0; t < TERMS; t = t + 1) begin : g_term
      wire enable = code[t*TERM_W+SHIFT_W+1];
      wire negative = code[t*TERM_W+SHIFT_W];
      wire [SHIFT_W-1:0] shift = code[t*TERM_W+:SHIFT_W];
      wire signed [ADDEND_W-1:0] shifted = x_wide <<< shift;
      // -v = ~v + 1: the 1 goes into a carry of the adders that follow.
      wire negate = enable && negative;
      wire [ADDEND_W-1:0] gated = {ADDEND_W{enable}} & shifted;
      assign terms[t*ADDEND_W+:ADDEND_W] = (gated ^ {ADDEND_W{negate}}) + ADDEND_W'(negate);
    end
  endgenerate

  logic signed [ADDEND_W-1:0] sum;
  always_comb begin
    sum = '0;
    for (int i = 0; i < TERMS; i++) sum = sum + $signed(terms[i*ADDEND_W+:ADDEND_W]);
  end
  assign addend = sum;

endmodule
`default_nettype wire

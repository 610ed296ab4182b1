`default_nettype none
// Terms of an n-hot weight stored as TERMS pairs of sign and exponent (golden: packings.nhot_pairs).
//
//   weight = sum over the terms that are there of (-1)^negative_t * 2^exponent_t
//
// Exponents fall from pair to pair, and that tells which terms are there: a pair whose exponent is
// not below the one before it is no term, nor is any after it; and if exponent 1 is above exponent 0
// there is no term 0 either. Terms come out as `pe_shift_add` takes them (rule S2), absent ones
// without their enable. Latency: combinational.
//
//   code   in   TERMS*(1 + EXPONENT_W)  pair t at [t*(1 + EXPONENT_W) +: 1 + EXPONENT_W],
//                                       {negative, exponent[EXPONENT_W]}, msb first
//   terms  out  TERMS*(2 + SHIFT_W)     term t at [t*(2 + SHIFT_W) +: 2 + SHIFT_W],
//                                       {enable, negative, shift[SHIFT_W]}, msb first
module nhot_pair_decoder #(
  parameter integer TERMS = 2,
  parameter integer EXPONENT_W = 3,
  parameter integer SHIFT_W = 4
) (
  input  wire [TERMS*(1+EXPONENT_W)-1:0] code,
  output wire [TERMS*(2+SHIFT_W)-1:0]    terms
);

  localparam integer PAIR_W = 1 + EXPONENT_W;
  localparam integer TERM_W = 2 + SHIFT_W;

`ifndef SYNTHESIS
  initial begin
    if (TERMS < 2) $fatal(1, "%m: TERMS must be at least 2, not %0d", TERMS);
    if (EXPONENT_W < 1 || SHIFT_W < EXPONENT_W)
      $fatal(1, "%m: need 1 <= EXPONENT_W <= SHIFT_W, not %0d and %0d", EXPONENT_W, SHIFT_W);
  end
`endif

  genvar t;
  generate
    for (t = 0; t < TERMS; t = t + 1) begin : g_term
      wire negative = code[t*PAIR_W+EXPONENT_W];
      wire [EXPONENT_W-1:0] exponent = code[t*PAIR_W+:EXPONENT_W];
      wire enable;
      if (t == 0) begin : g_first
        assign enable = code[PAIR_W+:EXPONENT_W] <= exponent;
      end else begin : g_other
        assign enable = g_term[t-1].enable && exponent < g_term[t-1].exponent;
      end
      assign terms[t*TERM_W+:TERM_W] = {enable, negative, SHIFT_W'(exponent)};
    end
  endgenerate

endmodule
`default_nettype wire

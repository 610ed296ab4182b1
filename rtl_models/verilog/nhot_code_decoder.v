`default_nettype none
// Terms of an n-hot weight from its code of the code book (golden: packings.nhot_code).
//
//   code = {negative, i}:  weight = (-1)^negative * M[i],
//   M = the magnitudes up to LIMIT among sums of at most TERMS signed powers 2^0 .. 2^MAX_EXPONENT,
//       ascending from M[0] = 0
//
// The terms are the non-adjacent form of the weight, as `pe_shift_add` takes them (rule S2): term 0
// is the one of the highest exponent, absent terms are 0. The book is computed from the parameters.
// Latency: combinational.
//
//   code   in   CODE_W               1 + bits of the largest i
//   terms  out  TERMS*(2 + SHIFT_W)  term t at [t*(2 + SHIFT_W) +: 2 + SHIFT_W],
//                                    {enable, negative, shift[SHIFT_W]}, msb first
//   valid  out  1                    0: no weight has this code, and the terms mean nothing
module nhot_code_decoder #(
  parameter integer TERMS = 2,
  parameter integer MAX_EXPONENT = 7,
  parameter integer LIMIT = 127,
  parameter integer CODE_W = 7,
  parameter integer SHIFT_W = 4
) (
  input  wire [CODE_W-1:0]            code,
  output wire [TERMS*(2+SHIFT_W)-1:0] terms,
  output wire                         valid
);

  localparam integer TERM_W = 2 + SHIFT_W;
  localparam integer ROW_W = TERMS * TERM_W;
  localparam integer INDEX_W = CODE_W - 1;
  localparam integer LARGEST = TERMS << MAX_EXPONENT;  // sum
  localparam integer TOP = LIMIT < LARGEST ? LIMIT : LARGEST;

  // Bit LARGEST + v tells whether v is a sum of at most `count` signed powers.
  function automatic [2*LARGEST:0] sums(input integer count);
    logic [2*LARGEST:0] fewer;
    begin
      sums = '0;
      sums[LARGEST] = 1'b1;
      for (int t = 0; t < count; t++) begin
        fewer = sums;
        for (int e = 0; e <= MAX_EXPONENT; e++)
          sums = sums | (fewer << (1 << e)) | (fewer >> (1 << e));
      end
    end
  endfunction

  localparam [2*LARGEST:0] IS_SUM = sums(TERMS);

  function automatic integer magnitudes(input integer top);
    begin
      magnitudes = 0;
      for (int m = 0; m <= top; m++) if (IS_SUM[LARGEST+m]) magnitudes++;
    end
  endfunction

  localparam integer SIZE = magnitudes(TOP);

`ifndef SYNTHESIS
  initial begin
    if (TERMS < 1 || MAX_EXPONENT < 0 || LIMIT < 1)
      $fatal(1, "%m: TERMS and LIMIT must be at least 1, MAX_EXPONENT at least 0");
    if (CODE_W != 1 + $clog2(SIZE))
      $fatal(1, "%m: %0d magnitudes need CODE_W = %0d, not %0d", SIZE, 1 + $clog2(SIZE), CODE_W);
    if (SHIFT_W < 1 || SHIFT_W > 4 || 3 * TOP >= 2 << (1 << SHIFT_W))
      $fatal(1, "%m: SHIFT_W must be 1 to 4 and hold exponents up to %0d", $clog2(3 * TOP + 1) - 2);
  end
`endif

  // Terms of M[i] at row i. The non-adjacent form of m has a digit 2^e where m and 3m differ in bit
  // e + 1, and it is negative where that bit of m is set.
  function automatic [SIZE*ROW_W-1:0] rows(input integer top);
    int place, next_row;
    logic [31:0] differ;
    begin
      rows = '0;
      next_row = 0;
      for (int m = 0; m <= top; m++)
        if (IS_SUM[LARGEST+m]) begin
          place = next_row;
          next_row += ROW_W;
          differ = (3 * m) ^ m;
          for (int e = (1 << SHIFT_W) - 1; e >= 0; e--)
            if (differ[e+1]) begin
              rows[place+:TERM_W] = {1'b1, m[e+1], SHIFT_W'(e)};
              place += TERM_W;
            end
        end
    end
  endfunction

  localparam [SIZE*ROW_W-1:0] BOOK = rows(TOP);

  wire negative = code[CODE_W-1];
  wire [INDEX_W-1:0] index = code[INDEX_W-1:0];
  logic [ROW_W-1:0] magnitude;

  always_comb begin
    magnitude = '0;
    for (int i = 0; i < SIZE; i++)
      if (index == INDEX_W'(i)) magnitude = magnitude | BOOK[i*ROW_W+:ROW_W];
  end

  genvar t;
  generate
    for (t = 0; t < TERMS; t = t + 1) begin : g_term
      wire [TERM_W-1:0] term = magnitude[t*TERM_W+:TERM_W];
      wire enable = term[TERM_W-1];
      wire flip = negative && enable;
      assign terms[t*TERM_W+:TERM_W] = {enable, term[SHIFT_W] ^ flip, term[SHIFT_W-1:0]};
    end
  endgenerate

  assign valid = 32'(index) < SIZE && !(negative && index == '0);

endmodule
`default_nettype wire

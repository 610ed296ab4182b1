`default_nettype none
// Codes of `pe_ternary` from five ternary weights in a byte, the byte of llama.cpp's TQ1_0 (golden:
// ternary_trits5).
//
//   stored = ceil(v * 256 / 243), v = sum over i of (weight_i + 1) * 3^(4-i)
//
// stored / 256 is v / 243 or a little more, so three times it has the digit of weight 0 before the
// point, three times what is behind the point that of weight 1, and so on: five additions, no
// division. Of the 256 bytes 243 are in use: behind the last digit is
// 243 * stored - 256 * v, which is below 243 for these and no others.
// Latency: combinational.
//
//   stored  in   8
//   codes   out  10  weight i at [2*i +: 2], {negative, enable} (rule S2)
//   valid   out  1   0: the byte is none of the 243, and the codes mean nothing
module trit_decoder (
  input  wire [7:0] stored,
  output wire [9:0] codes,
  output wire       valid
);

  genvar i;
  generate
    for (i = 0; i < 5; i = i + 1) begin : g_trit
      wire [7:0] fraction;
      if (i == 0) begin : g_first
        assign fraction = stored;
      end else begin : g_other
        assign fraction = g_trit[i-1].tripled[7:0];
      end
      wire [9:0] tripled = {1'b0, fraction, 1'b0} + {2'b00, fraction};
      // Digits 0, 1, 2 are weights -1, 0, +1.
      assign codes[2*i+:2] = {tripled[9:8] == 2'd0, !tripled[8]};
    end
  endgenerate

  assign valid = g_trit[4].tripled[7:0] < 8'd243;

endmodule
`default_nettype wire

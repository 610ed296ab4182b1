`default_nettype none

// Scales values by a multiplier and a shift, under one of five rounding rules.
//
//   cfg_rounding
//   0 double           d = sat32((w * multiplier + 2^30) >> 31), w = v[31:0] << max(shift, 0);
//                      d / 2^max(-shift, 0), rounded half away from zero
//   1 single           (v[31:0] * multiplier + 2^(30 - shift)) >> (31 - shift)
//   2 multiplier16     (v * m16 + 2^(14 - shift)) >> (15 - shift), low 32 bits, where m16 is
//                      multiplier / 2^16 rounded half up, at most 2^15 - 1
//   3 shift_half_up    v / 2^-shift, rounded half up
//   4 shift_half_even  v / 2^-shift, rounded half to even
//
// Legal shifts: -31..30 (double, single), -31..14 (multiplier16), -62..0 (shift rules).
// Positive shifts go left, as in TensorFlow Lite.
//
// LANES values a cycle share multiplier and shift. Two registers, value and product, loaded with
// `take1` and `take2`; the rounding of `out_value` is combinational behind the second. No reset.
//
// golden: golden.arithmetic.requantize.
module rescaler #(
    parameter integer LANES  = 1,  // values a cycle
    parameter integer POST_W = 32  // of a value: 32 or 64
) (
    input wire clk,

    // configuration
    input wire [2:0] cfg_rounding,

    // control: the first, the second register takes what comes
    input wire take1,
    input wire take2,

    // values and their scale
    input wire        [LANES*POST_W-1:0] in_value,
    input wire signed [            31:0] in_multiplier,
    input wire signed [             7:0] in_shift,

    // scaled values, signed
    output wire [LANES*64-1:0] out_value
);
  localparam [2:0] DOUBLE = 3'd0;
  localparam [2:0] SINGLE = 3'd1;
  localparam [2:0] MULTIPLIER16 = 3'd2;
  localparam [2:0] SHIFT_HALF_EVEN = 3'd4;

  // The rule and the shift as one product with `factor` and one rounding shift right by `amount`.
  wire       left = !in_shift[7] && cfg_rounding == DOUBLE;
  wire [4:0] left_amount = left ? in_shift[4:0] : 5'd0;
  wire signed [31:0] multiplier16 = in_multiplier >= 32'sh7fff0000 ? 32'sh7fff :
      (in_multiplier + 32'sh8000) >>> 16;

  wire [7:0] right_amount = in_shift[7] ? -in_shift : 8'd0;

  logic signed [31:0] factor_d, factor_q;
  logic [7:0] amount_d;
  logic [5:0] amount_q, amount_q2;

  always_comb begin
    factor_d = 32'sd1;
    amount_d = right_amount;
    case (cfg_rounding)
      DOUBLE:  factor_d = in_multiplier;
      SINGLE: begin
        factor_d = in_multiplier;
        amount_d = 8'd31 - in_shift;
      end
      MULTIPLIER16: begin
        factor_d = multiplier16;
        amount_d = 8'd15 - in_shift;
      end
      default: ;
    endcase
  end
  wire [1:0] unused_amount = amount_d[7:6];  // legal shifts give 0..62

  always_ff @(posedge clk) begin
    if (take1) factor_q <= factor_d;
    if (take1) amount_q <= amount_d[5:0];
    if (take2) amount_q2 <= amount_q;
  end

  wire signed [63:0] factor64 = {{32{factor_q[31]}}, factor_q};
  wire shifts = amount_q2 != 6'd0;
  wire [63:0] unit = 64'd1 << amount_q2;  // weight of the lowest bit that stays
  wire signed [63:0] half = $signed(unit >> 1);

  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
      // Value. The first two rules are defined on 32 bits.
      wire [POST_W-1:0] value = in_value[lane*POST_W+:POST_W];
      wire [31:0] word = value[31:0] << left_amount;
      wire narrow = cfg_rounding == DOUBLE || cfg_rounding == SINGLE;
      wire [POST_W-1:0] value_d;
      logic signed [POST_W-1:0] value_q;

      // Product. |value * factor| <= 2^62 for 32-bit values; 64-bit ones may wrap.
      wire signed [63:0] product_d;
      if (POST_W == 64) begin : g_wide
        assign value_d   = narrow ? {{32{word[31]}}, word} : value;
        assign product_d = value_q * factor64;
      end else begin : g_narrow
        wire signed [63:0] value64 = {{32{value_q[31]}}, value_q};
        assign value_d   = narrow ? word : value;
        assign product_d = value64 * factor64;
      end
      logic signed [63:0] product_q2;

      // The doubling high multiply of `double`, then the rounding shift of all rules.
      wire signed [63:0] raised = product_q2 + 64'sh40000000;
      wire signed [63:0] high = raised >>> 31;
      wire saturates = product_q2 == 64'sh4000000000000000;  // (-2^31) * (-2^31)
      wire signed [63:0] doubled = saturates ? 64'sh7fffffff : high;
      wire signed [63:0] scaled = cfg_rounding == DOUBLE ? doubled : product_q2;
      wire odd = |(scaled & unit);
      wire tie_down = shifts && (cfg_rounding == DOUBLE ? scaled[63] :
          cfg_rounding == SHIFT_HALF_EVEN && !odd);
      wire signed [63:0] nudged = scaled + half - $signed({63'd0, tie_down});
      wire signed [63:0] rounded = nudged >>> amount_q2;
      assign out_value[lane*64+:64] = cfg_rounding == MULTIPLIER16 ?
          {{32{rounded[31]}}, rounded[31:0]} : rounded;

      always_ff @(posedge clk) begin
        if (take1) value_q <= value_d;
        if (take2) product_q2 <= product_d;
      end
    end
  endgenerate
endmodule

`default_nettype wire

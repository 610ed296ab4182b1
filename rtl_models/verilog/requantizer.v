`default_nettype none

// Brings accumulators to output codes: bias, multiplier, rounding shift, zero point, clamp.
//
//   v    = acc + bias                                                   (POST_W bits, wraps)
//   code = clamp(round(v, multiplier, shift, cfg_rounding) + zero_point, minimum, maximum)
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
// LANES results a cycle share one channel's parameters. Three registers: biased value, product,
// code; one result a cycle. in_ready depends on out_ready, never on in_valid. The configuration is
// stable while anything is valid. Reset empties the pipeline.
//
//   port         width          meaning
//   in_acc       LANES*ACC_W    accumulators, signed, lane 0 lowest
//   in_bias      POST_W         signed
//   in_multiplier 32            signed, Q0.31
//   in_shift     8              signed
//   out_code     LANES*OUT_W    codes; uint codes where the bounds say so
//
// golden: golden.arithmetic.requantize, golden.operators.post_process; rule D3.
module requantizer #(
    parameter integer LANES  = 1,   // results a cycle
    parameter integer ACC_W  = 32,  // accumulator
    parameter integer POST_W = 32,  // accumulator plus bias: 32 or 64
    parameter integer OUT_W  = 8    // output code
) (
    input wire clk,
    input wire rst,

    // configuration
    input wire        [    2:0] cfg_rounding,
    input wire signed [OUT_W:0] cfg_zero_point,
    input wire signed [OUT_W:0] cfg_minimum,
    input wire signed [OUT_W:0] cfg_maximum,

    // accumulators and their channel's parameters
    input  wire                          in_valid,
    output wire                          in_ready,
    input  wire        [LANES*ACC_W-1:0] in_acc,
    input  wire signed [     POST_W-1:0] in_bias,
    input  wire signed [           31:0] in_multiplier,
    input  wire signed [            7:0] in_shift,

    // codes
    output wire                   out_valid,
    input  wire                   out_ready,
    output wire [LANES*OUT_W-1:0] out_code
);
  localparam [2:0] DOUBLE = 3'd0;
  localparam [2:0] SINGLE = 3'd1;
  localparam [2:0] MULTIPLIER16 = 3'd2;
  localparam [2:0] SHIFT_HALF_EVEN = 3'd4;

  initial begin
    if (LANES < 1) $fatal(1, "LANES=%0d must be 1 or more", LANES);
    if (POST_W != 32 && POST_W != 64) $fatal(1, "POST_W=%0d must be 32 or 64", POST_W);
    if (ACC_W < 2 || ACC_W > POST_W) $fatal(1, "ACC_W=%0d must be 2 to POST_W=%0d", ACC_W, POST_W);
    if (OUT_W < 2 || OUT_W > 16) $fatal(1, "OUT_W=%0d must be 2 to 16", OUT_W);
  end

  // Elastic pipeline: a stage takes a new result when it is empty or the next one takes its own.
  logic valid_q, valid_q2, valid_q3;
  wire take3 = !valid_q3 || out_ready;
  wire take2 = !valid_q2 || take3;
  wire take1 = !valid_q || take2;
  assign in_ready  = take1;
  assign out_valid = valid_q3;

  always_ff @(posedge clk) begin
    if (rst) begin
      valid_q  <= 1'b0;
      valid_q2 <= 1'b0;
      valid_q3 <= 1'b0;
    end else begin
      if (take1) valid_q <= in_valid;
      if (take2) valid_q2 <= valid_q;
      if (take3) valid_q3 <= valid_q2;
    end
  end

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
  wire signed [63:0] zero_point64 = {{63 - OUT_W{cfg_zero_point[OUT_W]}}, cfg_zero_point};
  wire signed [63:0] minimum64 = {{63 - OUT_W{cfg_minimum[OUT_W]}}, cfg_minimum};
  wire signed [63:0] maximum64 = {{63 - OUT_W{cfg_maximum[OUT_W]}}, cfg_maximum};

  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
      // Stage 1: bias. The first two rules are defined on 32-bit accumulators.
      wire [ ACC_W-1:0] acc = in_acc[lane*ACC_W+:ACC_W];
      wire [POST_W-1:0] biased = {{POST_W - ACC_W + 1{acc[ACC_W-1]}}, acc[ACC_W-2:0]} + in_bias;
      wire [      31:0] word = biased[31:0] << left_amount;
      wire narrow = cfg_rounding == DOUBLE || cfg_rounding == SINGLE;
      wire [POST_W-1:0] value_d;
      logic signed [POST_W-1:0] value_q;

      // Stage 2: product. |value * factor| <= 2^62 for 32-bit values; 64-bit ones may wrap.
      wire signed [63:0] product_d;
      if (POST_W == 64) begin : g_wide
        assign value_d   = narrow ? {{32{word[31]}}, word} : biased;
        assign product_d = value_q * factor64;
      end else begin : g_narrow
        wire signed [63:0] value64 = {{32{value_q[31]}}, value_q};
        assign value_d   = narrow ? word : biased;
        assign product_d = value64 * factor64;
      end
      logic signed [63:0] product_q2;

      // Stage 3: the doubling high multiply of `double`, then the rounding shift of all rules.
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
      wire signed [63:0] kept = cfg_rounding == MULTIPLIER16 ?
          {{32{rounded[31]}}, rounded[31:0]} : rounded;
      wire signed [63:0] code64 = kept + zero_point64;
      wire [OUT_W-1:0] code_d = code64 < minimum64 ? cfg_minimum[OUT_W-1:0] :
          code64 > maximum64 ? cfg_maximum[OUT_W-1:0] : code64[OUT_W-1:0];
      logic [OUT_W-1:0] code_q3;
      assign out_code[lane*OUT_W+:OUT_W] = code_q3;

      always_ff @(posedge clk) begin
        if (take1) value_q <= value_d;
        if (take2) product_q2 <= product_d;
        if (take3) code_q3 <= code_d;
      end
    end
  endgenerate
endmodule

`default_nettype wire

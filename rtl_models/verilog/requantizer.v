`default_nettype none

// Brings accumulators to output codes: bias, multiplier, rounding shift, zero point, clamp.
//
//   v    = acc + bias                                                   (POST_W bits, wraps)
//   code = clamp(round(v, multiplier, shift, cfg_rounding) + zero_point, minimum, maximum)
//
// where round is that of rescaler: the multiplier, the shift, and the rule cfg_rounding.
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

  // Stage 1: bias
  wire [LANES*POST_W-1:0] biased;
  wire [LANES*64-1:0] scaled;

  rescaler #(
      .LANES (LANES),
      .POST_W(POST_W)
  ) u_rescaler (
      .clk          (clk),
      .cfg_rounding (cfg_rounding),
      .take1        (take1),
      .take2        (take2),
      .in_value     (biased),
      .in_multiplier(in_multiplier),
      .in_shift     (in_shift),
      .out_value    (scaled)
  );

  wire signed [63:0] zero_point64 = {{63 - OUT_W{cfg_zero_point[OUT_W]}}, cfg_zero_point};
  wire signed [63:0] minimum64 = {{63 - OUT_W{cfg_minimum[OUT_W]}}, cfg_minimum};
  wire signed [63:0] maximum64 = {{63 - OUT_W{cfg_maximum[OUT_W]}}, cfg_maximum};

  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
      wire [ACC_W-1:0] acc = in_acc[lane*ACC_W+:ACC_W];
      assign biased[lane*POST_W+:POST_W] =
          {{POST_W - ACC_W + 1{acc[ACC_W-1]}}, acc[ACC_W-2:0]} + in_bias;

      // Stage 3: zero point and clamp
      wire signed [63:0] code64 = $signed(scaled[lane*64+:64]) + zero_point64;
      wire [OUT_W-1:0] code_d = code64 < minimum64 ? cfg_minimum[OUT_W-1:0] :
          code64 > maximum64 ? cfg_maximum[OUT_W-1:0] : code64[OUT_W-1:0];
      logic [OUT_W-1:0] code_q3;
      assign out_code[lane*OUT_W+:OUT_W] = code_q3;

      always_ff @(posedge clk) if (take3) code_q3 <= code_d;
    end
  endgenerate
endmodule

`default_nettype wire

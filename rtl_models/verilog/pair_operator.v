`default_nettype none

// Makes accumulators of the results of the vector unit: sums or multiplies the pairs of `add`, `mul`.
//
//   a, b       upper and lower half of a pair; b' = b + cfg_second_offset
//   add        rescale(a << left_shift, first) + rescale(b' << left_shift, second), 4 cycles later
//   mul        a * b', in the same cycle
//   otherwise  the result as it is, in the same cycle
//
// All in POST_W bits, which wrap; rescale is that of rescaler under cfg_rounding. One group of LANES
// results a cycle. No reset: what comes in with nothing valid goes out with nothing valid.
//
//   port      width          meaning
//   in_value  LANES*POST_W   results; a pair {a, b} stands in the lowest 2 * (CODE_W + 1) bits
//   out_acc   LANES*POST_W   accumulators for the requantizer, signed
//
// golden: golden.operators.add, golden.operators.mul; rules V2, V3.
module pair_operator #(
    parameter integer LANES  = 1,
    parameter integer CODE_W = 8,  // codes
    parameter integer POST_W = 32  // 32 or 64
) (
    input wire clk,

    // configuration, see layer_engine
    input wire        [       2:0] cfg_mode,
    input wire        [       2:0] cfg_rounding,
    input wire signed [CODE_W+1:0] cfg_second_offset,
    input wire        [       4:0] cfg_left_shift,
    input wire signed [      31:0] cfg_first_multiplier,
    input wire signed [       7:0] cfg_first_shift,
    input wire signed [      31:0] cfg_second_multiplier,
    input wire signed [       7:0] cfg_second_shift,

    input  wire [LANES*POST_W-1:0] in_value,
    output wire [LANES*POST_W-1:0] out_acc
);
  localparam [2:0] ADD = 3'd3;
  localparam [2:0] MUL = 3'd4;
  localparam integer X_W = CODE_W + 1;

  wire [LANES*POST_W-1:0] first, second;  // operands as accumulators of their own
  wire [LANES*64-1:0] first_scaled, second_scaled;

  rescaler #(
      .LANES (LANES),
      .POST_W(POST_W)
  ) u_first (
      .clk          (clk),
      .cfg_rounding (cfg_rounding),
      .take1        (1'b1),
      .take2        (1'b1),
      .in_value     (first),
      .in_multiplier(cfg_first_multiplier),
      .in_shift     (cfg_first_shift),
      .out_value    (first_scaled)
  );

  rescaler #(
      .LANES (LANES),
      .POST_W(POST_W)
  ) u_second (
      .clk          (clk),
      .cfg_rounding (cfg_rounding),
      .take1        (1'b1),
      .take2        (1'b1),
      .in_value     (second),
      .in_multiplier(cfg_second_multiplier),
      .in_shift     (cfg_second_shift),
      .out_value    (second_scaled)
  );

  genvar lane;
  generate
    for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
      wire [POST_W-1:0] value = in_value[lane*POST_W+:POST_W];
      wire signed [X_W-1:0] a = value[X_W+:X_W];
      wire signed [X_W-1:0] b = value[0+:X_W];
      wire signed [X_W:0] b_moved = {b[X_W-1], b} + cfg_second_offset;

      // |a * b'| < 2^(2 * X_W): 19 or 35 bits
      localparam integer PRODUCT_W = 2 * X_W + 1;
      wire signed [PRODUCT_W-1:0] a_wide = {{X_W + 1{a[X_W-1]}}, a};
      wire signed [PRODUCT_W-1:0] b_wide = {{X_W{b_moved[X_W]}}, b_moved};
      wire signed [PRODUCT_W-1:0] product = a_wide * b_wide;

      assign first[lane*POST_W+:POST_W]  = {{POST_W - X_W{a[X_W-1]}}, a} << cfg_left_shift;
      assign second[lane*POST_W+:POST_W] = {{POST_W - X_W - 1{b_moved[X_W]}}, b_moved} <<
          cfg_left_shift;

      logic [POST_W-1:0] first_q, second_q, sum_q;
      always_ff @(posedge clk) begin
        first_q  <= first_scaled[lane*64+:POST_W];
        second_q <= second_scaled[lane*64+:POST_W];
        sum_q    <= first_q + second_q;
      end

      assign out_acc[lane*POST_W+:POST_W] = cfg_mode == ADD ? sum_q :
          cfg_mode == MUL ? {{POST_W - PRODUCT_W{product[PRODUCT_W-1]}}, product} : value;
    end

    if (POST_W < 64) begin : g_unused
      wire unused = ^{first_scaled, second_scaled};  // upper halves
    end
  endgenerate
endmodule

`default_nettype wire

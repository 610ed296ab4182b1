`default_nettype none

// Reduces the words of a tile to one value for each row and lane (rules V1, V2).
//
//   cfg_mode
//   1 sum       sum of all operands x
//   2 max       largest operand of the words whose row is not masked; 0 if all are
//   3, 4 pair   {a, b} in the lowest 2 * X_W bits, operands of the tile's last two words
//
// A word at the feeder in cycle t is in the word register in t+1, where it can be taken. The last
// word of a tile fires when it is taken if `handoff_ready`, otherwise later; nothing is taken until
// then. A word taken in cycle t is in the accumulators from t+2 on; a fire in cycle t is in the
// shadow registers (`result`) from t+3 on. One word a cycle. With drain_enable = 0 a fire leaves
// the accumulators alone (rule E4).
// Reset: accumulators and state 0. `flush` drops the word and leaves the accumulators alone.
//
//   port         meaning
//   feed_data    operands: lane f of row r at [(r*FEED+f)*X_W]
//   feed_mask    bit r: row r is not masked; feed_last: the word is the last of its tile
//   taken        a word is taken in this cycle
//   waiting      the tile's last word was taken before this cycle and has not fired
//   result_lane  a lane, below FEED
//   result       shadow registers of that lane, row 0 lowest, POST_W bits each, signed
//
// model: simulator.kernels.run_cycles with one column and one entry a word; rules A4, A5, E5.
module vector_unit #(
    parameter integer ROWS   = 4,
    parameter integer FEED   = 1,
    parameter integer CODE_W = 8,
    parameter integer TAP_W  = 8,   // a kernel has at most 2^TAP_W x 2^TAP_W taps
    parameter integer POST_W = 32,
    localparam integer X_W    = CODE_W + 1,
    localparam integer LANE_W = FEED > 1 ? $clog2(FEED) : 1,
    // |sum of 2^(2*TAP_W) operands| < 2^(CODE_W + 2*TAP_W), since |x| < 2^CODE_W; a pair is 2 * X_W
    localparam integer SUM_W  = CODE_W + 2 * TAP_W + 1,
    localparam integer ACC_W  = SUM_W > 2 * X_W ? SUM_W : 2 * X_W
) (
    input wire clk,
    input wire rst,
    input wire flush,

    // configuration
    input wire [2:0] cfg_mode,

    // words of the feeder
    input  wire                     feed_valid,
    output wire                     feed_ready,
    input  wire [ROWS*FEED*X_W-1:0] feed_data,
    input  wire [         ROWS-1:0] feed_mask,
    input  wire                     feed_last,

    // end of a tile
    input  wire handoff_ready,
    input  wire drain_enable,
    output wire fire,

    // status
    output wire taken,
    output wire waiting,

    // shadow registers
    input  wire [     LANE_W-1:0] result_lane,
    output wire [ROWS*POST_W-1:0] result
);
  localparam [2:0] SUM = 3'd1;
  localparam [2:0] MAX = 3'd2;

  initial begin
    if (ACC_W >= POST_W) $fatal(1, "accumulators of %0d bits exceed POST_W=%0d", ACC_W, POST_W);
  end

  // Word register and the end of a tile (rules A1, A4, A5 for one column and one entry a word)
  logic word_valid_q, word_last_q;
  logic waiting_q, handoff_q, clear_q;
  logic [ROWS*FEED*X_W-1:0] word_q;
  logic [ROWS-1:0] mask_q;

  wire load = feed_valid && feed_ready;
  wire ended = waiting_q || taken && word_last_q;

  assign taken      = word_valid_q && !waiting_q;
  assign feed_ready = !word_valid_q || taken;
  assign fire       = ended && handoff_ready;
  assign waiting    = waiting_q;

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      word_valid_q <= 1'b0;
      waiting_q    <= 1'b0;
    end else begin
      word_valid_q <= load || word_valid_q && !taken;
      waiting_q    <= ended && !fire;
    end
    if (load) begin
      word_q      <= feed_data;
      mask_q      <= feed_mask;
      word_last_q <= feed_last;
    end
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      handoff_q <= 1'b0;
      clear_q   <= 1'b0;
    end else begin
      handoff_q <= fire && drain_enable;
      clear_q   <= handoff_q;
    end
  end

  genvar row, lane;
  generate
    for (row = 0; row < ROWS; row = row + 1) begin : g_row
      logic step_q, empty_q;  // empty: no operand since the clear
      wire empty = clear_q || empty_q;
      wire [ACC_W-1:0] shadow[0:FEED-1];
      wire [ACC_W-1:0] selected = shadow[result_lane];

      always_ff @(posedge clk) begin
        if (rst) begin
          step_q  <= 1'b0;
          empty_q <= 1'b1;
        end else begin
          step_q  <= taken && mask_q[row];
          empty_q <= empty && !step_q;
        end
      end

      for (lane = 0; lane < FEED; lane = lane + 1) begin : g_lane
        logic signed [X_W-1:0] x_q;
        logic signed [ACC_W-1:0] acc_q, result_q;
        wire signed [ACC_W-1:0] x = {{ACC_W - X_W{x_q[X_W-1]}}, x_q};
        wire signed [ACC_W-1:0] base = clear_q ? '0 : acc_q;
        wire signed [ACC_W-1:0] largest = empty || x > base ? x : base;
        wire [ACC_W-1:0] reduced = cfg_mode == SUM ? base + x :
            cfg_mode == MAX ? largest : {base[ACC_W-X_W-1:0], x_q};

        always_ff @(posedge clk) begin
          if (taken) x_q <= word_q[(row*FEED+lane)*X_W+:X_W];
          if (rst) begin
            acc_q    <= '0;
            result_q <= '0;
          end else begin
            acc_q <= step_q ? reduced : base;
            if (clear_q) result_q <= acc_q;
          end
        end

        assign shadow[lane] = result_q;
      end

      assign result[row*POST_W+:POST_W] = {{POST_W - ACC_W{selected[ACC_W-1]}}, selected};
    end
  endgenerate
endmodule

`default_nettype wire

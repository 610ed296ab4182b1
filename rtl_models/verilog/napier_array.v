`default_nettype none
// Output-stationary array: operand window, COLS column sequencers, ROWS x COLS PEs (rules A1 to A6).
//
// PE (r, c) accumulates, over the entries that column c issues,
//
//   addend(x[r], code)    x[r] = word[offset[c]][r][lane]
//
// Every column walks the window at its own pace; the columns meet at the end of a tile only: `fire`.
// Latency: an entry issued in cycle t is in acc from t+2 on; a fire in cycle t is in the shadow
// registers (`result`) from t+3 on. One entry a column a cycle. Reset: synchronous, everything 0.
//
//   clk, rst, flush   in                          flush: window, offsets and done to 0; the PEs stay
//   feed_valid/ready  in/out
//   feed_data         in   ROWS*FEED*X_W          row r lane f at [(r*FEED+f)*X_W +: X_W]
//   entry_valid/ready in/out COLS
//   entry_data        in   COLS*ENTRY_W           {last, advance, lane, code}, msb first (rule S1)
//   handoff_ready     in   1                      the shadow registers may be overwritten (rule D1)
//   drain_enable      in   1                      0: a fire leaves the accumulators alone (rule E4)
//   fire              out  1                      combinational: the tile ends in this cycle
//   issue_any         out  1                      some column issues in this cycle
//   all_done          out  1                      all columns were done before this cycle
//   result_col        in   max(1, clog2(COLS))  a column, below COLS
//   result            out  ROWS*RESULT_W          shadow registers of that column, row 0 lowest
//   result_overflow   out  ROWS
//   result_events     out  ROWS*EVENTS_W
//
// State by name (r, c, d are indices):
//   n                 u_window.n_q
//   word[d]           u_window.g_word[d].word_q
//   offset[c], done[c]  g_sequencer[c].u_sequencer.offset_q, .done_q
//   handoff           handoff_q
//   operand stage     g_row[r].g_col[c].u_pe.x_q, .code_q, .step_q, .clear_q
//   accumulate stage  g_row[r].g_col[c].u_pe.u_accumulator.acc_q, .overflow_q, .events_q,
//                     with SPILL .g_spill.wide_q, .g_spill.count_q
//   shadow            g_row[r].g_col[c].u_pe.u_accumulator.result_q, .result_overflow_q, .result_events_q
module napier_array #(
  parameter integer ROWS = 4,
  parameter integer COLS = 4,
  parameter integer FEED = 1,
  parameter integer DEPTH = 1,
  parameter integer ADV_W = 4,
  parameter integer PE_KIND = 0,
  parameter integer TERMS = 1,
  parameter integer X_W = 9,
  parameter integer WEIGHT_W = 9,
  parameter integer SHIFT_W = 4,
  parameter integer ACC_BITS = 32,
  parameter integer SATURATE = 0,
  parameter integer EVENTS_W = 16,
  parameter integer SPILL = 0,
  parameter integer WIDE_BITS = 32,
  localparam integer LANE_W = FEED > 1 ? $clog2(FEED) : 1,
  localparam integer CODE_W = PE_KIND == 0 ? WEIGHT_W : PE_KIND == 1 ? TERMS * (2 + SHIFT_W) : 2,
  localparam integer ENTRY_W = 1 + ADV_W + LANE_W + CODE_W,
  localparam integer RESULT_W = SPILL > 0 ? WIDE_BITS : ACC_BITS,
  localparam integer COL_W = COLS > 1 ? $clog2(COLS) : 1
) (
  input  wire                     clk,
  input  wire                     rst,
  input  wire                     flush,

  input  wire                     feed_valid,
  output wire                     feed_ready,
  input  wire [ROWS*FEED*X_W-1:0] feed_data,

  input  wire [COLS-1:0]          entry_valid,
  output wire [COLS-1:0]          entry_ready,
  input  wire [COLS*ENTRY_W-1:0]  entry_data,

  input  wire                     handoff_ready,
  input  wire                     drain_enable,
  output wire                     fire,
  output wire                     issue_any,
  output wire                     all_done,

  input  wire [COL_W-1:0]         result_col,
  output wire [ROWS*RESULT_W-1:0] result,
  output wire [ROWS-1:0]          result_overflow,
  output wire [ROWS*EVENTS_W-1:0] result_events
);

  localparam integer WORD_W = ROWS * FEED * X_W;
  localparam integer N_W = $clog2(DEPTH + 1);
  localparam integer OFFSET_W = $clog2(DEPTH + (1 << ADV_W) - 1);
  localparam integer OPERANDS = DEPTH * FEED;  // that a PE can pick from
  localparam integer PICK_W = OPERANDS > 1 ? $clog2(OPERANDS) : 1;
  localparam integer SHADOW_W = EVENTS_W + 1 + RESULT_W;

`ifndef SYNTHESIS
  initial begin
    if (ROWS < 1 || COLS < 1) $fatal(1, "%m: ROWS and COLS must be at least 1");
    if (FEED < 1 || (FEED & (FEED - 1)) != 0)
      $fatal(1, "%m: FEED must be a power of two, not %0d", FEED);
  end
`endif

  // A3, A4: window
  wire [N_W-1:0]          n;
  wire [DEPTH*WORD_W-1:0] words;
  wire [COLS-1:0]         passed;
  wire                    release_word = n != '0 && &passed;

  array_window #(
    .WORD_W(WORD_W),
    .DEPTH (DEPTH)
  ) u_window (
    .clk         (clk),
    .rst         (rst),
    .flush       (flush),
    .feed_valid  (feed_valid),
    .feed_ready  (feed_ready),
    .feed_data   (feed_data),
    .release_word(release_word),
    .n           (n),
    .words       (words)
  );

  // A1, A2: columns
  wire [COLS-1:0]        issue;
  wire [COLS-1:0]        step;
  wire [COLS-1:0]        finished;
  wire [COLS-1:0]        done;
  wire [COLS*CODE_W-1:0] codes;
  wire [COLS*PICK_W-1:0] picks;

  genvar c, r, i;
  generate
    for (c = 0; c < COLS; c = c + 1) begin : g_sequencer
      wire                entry_last;
      wire [ADV_W-1:0]    entry_advance;
      wire [LANE_W-1:0]   lane;
      wire [CODE_W-1:0]   code;
      wire [OFFSET_W-1:0] offset;
      assign {entry_last, entry_advance, lane, code} = entry_data[c*ENTRY_W+:ENTRY_W];

      column_sequencer #(
        .DEPTH(DEPTH),
        .ADV_W(ADV_W)
      ) u_sequencer (
        .clk          (clk),
        .rst          (rst),
        .flush        (flush),
        .n            (n),
        .release_word (release_word),
        .fire         (fire),
        .entry_valid  (entry_valid[c]),
        .entry_ready  (entry_ready[c]),
        .entry_last   (entry_last),
        .entry_advance(entry_advance),
        .issue        (issue[c]),
        .passed       (passed[c]),
        .finished     (finished[c]),
        .offset       (offset),
        .done         (done[c])
      );

      assign step[c] = issue[c] && code != '0;
      assign codes[c*CODE_W+:CODE_W] = code;
      // offset * FEED + lane; where the column issues, it is below OPERANDS.
      assign picks[c*PICK_W+:PICK_W] = PICK_W'({offset, lane} >> (FEED > 1 ? 0 : 1));
    end
  endgenerate

  // A5: end of a tile
  logic handoff_q;
  assign fire = &finished && handoff_ready;
  assign issue_any = |issue;
  assign all_done = &done;

  always_ff @(posedge clk) begin
    if (rst) handoff_q <= 1'b0;
    else handoff_q <= fire && drain_enable;
  end

  // A6: operands and PEs
  generate
    for (r = 0; r < ROWS; r = r + 1) begin : g_row
      wire [X_W-1:0]      operand[0:OPERANDS-1];
      wire [SHADOW_W-1:0] shadow [0:COLS-1];

      for (i = 0; i < OPERANDS; i = i + 1) begin : g_operand
        assign operand[i] = words[(i/FEED)*WORD_W+(r*FEED+i%FEED)*X_W+:X_W];
      end

      for (c = 0; c < COLS; c = c + 1) begin : g_col
        wire [PICK_W-1:0]   pick = picks[c*PICK_W+:PICK_W];
        wire [RESULT_W-1:0] pe_result;
        wire                pe_overflow;
        wire [EVENTS_W-1:0] pe_events;

        napier_pe #(
          .PE_KIND  (PE_KIND),
          .TERMS    (TERMS),
          .X_W      (X_W),
          .WEIGHT_W (WEIGHT_W),
          .SHIFT_W  (SHIFT_W),
          .ACC_BITS (ACC_BITS),
          .SATURATE (SATURATE),
          .EVENTS_W (EVENTS_W),
          .SPILL    (SPILL),
          .WIDE_BITS(WIDE_BITS)
        ) u_pe (
          .clk            (clk),
          .rst            (rst),
          .issue          (issue[c]),
          .step           (step[c]),
          .clear          (handoff_q),
          .x              (operand[pick]),
          .code           (codes[c*CODE_W+:CODE_W]),
          .result         (pe_result),
          .result_overflow(pe_overflow),
          .result_events  (pe_events)
        );
        assign shadow[c] = {pe_events, pe_overflow, pe_result};
      end

      assign {result_events[r*EVENTS_W+:EVENTS_W], result_overflow[r], result[r*RESULT_W+:RESULT_W]} =
          shadow[result_col];
    end
  endgenerate

endmodule
`default_nettype wire

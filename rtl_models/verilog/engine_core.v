`default_nettype none

// The array with its entry streams, and beside it the vector unit: what makes results of the words
// of the feeder.
//
// cfg_mode 0 runs the array, another mode the vector unit (VECTOR = 0: there is none). The one that
// gets no words does nothing, and its state stays as it is. Timing of both: a word at the feeder in
// cycle t can be used in t+1; a fire in cycle t is in the shadow registers from t+3 on.
// Reset: see napier_array, vector_unit and stream_reader; `flush` begins a run.
//
//   port          meaning
//   begin_run     first read of the streams
//   part_last     the part being computed is the last of its tile; pixel_last: the tile is the last
//                 pixel tile of its channel tile; run_last: the part is the last of the run
//   feed_*        words for the array, or the vector unit, which takes CODE_W + 1 bits of operands
//   fire          the tile ends in this cycle (rule A5)
//   issue_any     some column issues, or the unit takes a word
//   all_done      the tile waits for handoff_ready only
//   result_col    a column of the array, or a lane of the vector unit
//   result        its shadow registers, row 0 lowest, RESULT_W bits each, signed
//
// model: simulator.stepped; rules A1 to A6, S5, E2, V1, V2.
module engine_core #(
    parameter integer ROWS          = 4,
    parameter integer COLS          = 4,
    parameter integer FEED          = 1,
    parameter integer DEPTH         = 1,
    parameter integer PE_KIND       = 0,
    parameter integer TERMS         = 1,
    parameter integer CODE_W        = 8,
    parameter integer X_W           = 9,   // operands of the array, CODE_W + 1 or more
    parameter integer WEIGHT_W      = 9,
    parameter integer SHIFT_W       = 4,
    parameter integer ADV_W         = 4,
    parameter integer ACC_BITS      = 32,
    parameter integer SATURATE      = 0,
    parameter integer EVENTS_W      = 16,
    parameter integer SPILL         = 0,
    parameter integer WIDE_BITS     = 32,
    parameter integer VECTOR        = 1,
    parameter integer POST_W        = 32,
    parameter integer TAP_W         = 8,
    parameter integer STREAM_PLACES = 0,
    parameter integer STREAM_ADDR_W = 10,
    localparam integer LANE_W         = FEED > 1 ? $clog2(FEED) : 1,
    localparam integer COL_W          = COLS > 1 ? $clog2(COLS) : 1,
    localparam integer RESULT_COL_W   = LANE_W > COL_W ? LANE_W : COL_W,
    localparam integer ENTRY_CODE_W   = PE_KIND == 0 ? WEIGHT_W :
                                        PE_KIND == 1 ? TERMS * (2 + SHIFT_W) : 2,
    localparam integer ENTRY_W        = 1 + ADV_W + LANE_W + ENTRY_CODE_W,
    localparam integer ARRAY_RESULT_W = SPILL > 0 ? WIDE_BITS : ACC_BITS,
    localparam integer RESULT_W       = VECTOR != 0 ? POST_W : ARRAY_RESULT_W
) (
    input wire clk,
    input wire rst,
    input wire flush,

    // configuration, see layer_engine
    input wire [              2:0] cfg_mode,
    input wire                     cfg_drain,
    input wire [STREAM_ADDR_W-1:0] cfg_stream_base,

    // tile being computed
    input wire begin_run,
    input wire part_last,
    input wire pixel_last,
    input wire run_last,

    // words of the feeder
    input  wire                     feed_valid,
    output wire                     feed_ready,
    input  wire [ROWS*FEED*X_W-1:0] feed_data,
    input  wire [         ROWS-1:0] feed_mask,
    input  wire                     feed_last,

    // stream memories
    output wire [              COLS-1:0] stream_read,
    output wire [COLS*STREAM_ADDR_W-1:0] stream_addr,
    input  wire [      COLS*ENTRY_W-1:0] stream_entry,

    // end of a tile
    input  wire handoff_ready,
    output wire fire,
    output wire issue_any,
    output wire all_done,

    // shadow registers
    input  wire [   RESULT_COL_W-1:0] result_col,
    output wire [  ROWS*RESULT_W-1:0] result,
    output wire [           ROWS-1:0] result_overflow,
    output wire [  ROWS*EVENTS_W-1:0] result_events
);
  initial begin
    if (ARRAY_RESULT_W > POST_W) begin
      $fatal(1, "results of %0d bits exceed POST_W=%0d", ARRAY_RESULT_W, POST_W);
    end
  end

  wire vector;  // the run is one of the vector unit

  // Entry streams
  wire [COLS-1:0] entry_valid, entry_ready;

  genvar c;
  generate
    for (c = 0; c < COLS; c = c + 1) begin : g_col
      stream_reader #(
          .ADDR_W(STREAM_ADDR_W),
          .PLACES(STREAM_PLACES)
      ) u_stream (
          .clk        (clk),
          .rst        (rst),
          .flush      (flush),
          .cfg_base   (cfg_stream_base),
          .begin_run  (begin_run && !vector),
          .part_last  (part_last),
          .pixel_last (pixel_last),
          .run_last   (run_last),
          .read       (stream_read[c]),
          .addr       (stream_addr[c*STREAM_ADDR_W+:STREAM_ADDR_W]),
          .last       (stream_entry[c*ENTRY_W+ENTRY_W-1]),
          .entry_valid(entry_valid[c]),
          .entry_ready(entry_ready[c])
      );
    end
  endgenerate

  // Array
  wire array_ready, array_fire, array_issue, array_done;
  wire [ROWS*ARRAY_RESULT_W-1:0] array_result;
  wire [ROWS-1:0] array_overflow;
  wire [ROWS*EVENTS_W-1:0] array_events;

  napier_array #(
      .ROWS     (ROWS),
      .COLS     (COLS),
      .FEED     (FEED),
      .DEPTH    (DEPTH),
      .ADV_W    (ADV_W),
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
  ) u_array (
      .clk            (clk),
      .rst            (rst),
      .flush          (flush),
      .feed_valid     (feed_valid && !vector),
      .feed_ready     (array_ready),
      .feed_data      (feed_data),
      .entry_valid    (entry_valid),
      .entry_ready    (entry_ready),
      .entry_data     (stream_entry),
      .handoff_ready  (handoff_ready),
      .drain_enable   (cfg_drain),
      .fire           (array_fire),
      .issue_any      (array_issue),
      .all_done       (array_done),
      .result_col     (COL_W'(result_col)),
      .result         (array_result),
      .result_overflow(array_overflow),
      .result_events  (array_events)
  );

  // Vector unit; of the two, the one that gets no words does nothing
  wire unit_ready, unit_fire, unit_taken, unit_waiting;

  assign feed_ready = vector ? unit_ready : array_ready;
  assign fire       = array_fire || unit_fire;
  assign issue_any  = array_issue || unit_taken;
  assign all_done   = array_done || unit_waiting;

  genvar r;
  generate
    if (VECTOR != 0) begin : g_vector
      wire [ROWS*POST_W-1:0] unit_result;
      wire [ROWS*FEED*(CODE_W+1)-1:0] unit_data;

      vector_unit #(
          .ROWS  (ROWS),
          .FEED  (FEED),
          .CODE_W(CODE_W),
          .TAP_W (TAP_W),
          .POST_W(POST_W)
      ) u_unit (
          .clk          (clk),
          .rst          (rst),
          .flush        (flush),
          .cfg_mode     (cfg_mode),
          .feed_valid   (feed_valid && vector),
          .feed_ready   (unit_ready),
          .feed_data    (unit_data),
          .feed_mask    (feed_mask),
          .feed_last    (feed_last),
          .handoff_ready(handoff_ready),
          .drain_enable (cfg_drain),
          .fire         (unit_fire),
          .taken        (unit_taken),
          .waiting      (unit_waiting),
          .result_lane  (LANE_W'(result_col)),
          .result       (unit_result)
      );

      assign vector          = cfg_mode != '0;
      assign result_overflow = vector ? '0 : array_overflow;
      assign result_events   = vector ? '0 : array_events;

      for (r = 0; r < ROWS * FEED; r = r + 1) begin : g_operand
        assign unit_data[r*(CODE_W+1)+:CODE_W+1] = feed_data[r*X_W+:CODE_W+1];
      end

      for (r = 0; r < ROWS; r = r + 1) begin : g_row
        wire [ARRAY_RESULT_W-1:0] value = array_result[r*ARRAY_RESULT_W+:ARRAY_RESULT_W];
        assign result[r*POST_W+:POST_W] = vector ? unit_result[r*POST_W+:POST_W] :
            {{POST_W - ARRAY_RESULT_W + 1{value[ARRAY_RESULT_W-1]}}, value[ARRAY_RESULT_W-2:0]};
      end
    end else begin : g_array_only
      wire unused = ^{cfg_mode, feed_mask, feed_last, result_col};
      assign vector = 1'b0;
      assign {unit_ready, unit_fire, unit_taken, unit_waiting} = '0;
      assign {result, result_overflow, result_events} = {array_result, array_overflow, array_events};
    end
  endgenerate
endmodule

`default_nettype wire

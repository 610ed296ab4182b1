`default_nettype none

// Runs a layer, or a pass of one: feeds the array or the vector unit, drains and requantizes their
// results. Engines with VECTOR = 0 have no vector unit and run cfg_mode 0 only, those with
// WINOGRAD = 0 no Winograd unit, and cfg_winograd 0 only.
//
// `start` is sampled while `busy` is low (cycle 0); the configuration is stable from there to `done`.
// A run whose last fire is in cycle t takes t + N + 7 cycles, N being the result cycles of its last
// tile (t + N + 10 with cfg_winograd, rule W5); with cfg_drain = 0 it is one tile, keeps its accumulators and takes t + 1 (rules E1 to E4).
// `done` is high in the last cycle; the counters are final from the cycle after it to the next start.
// Every cycle has one cause (rule E5): cycles = compute + fill + stall_feed + drain.
// Synchronous reset at any time; it also clears the accumulators.
//
// Memories are synchronous: an address and read enable of cycle t give data in cycle t + 1, which
// hold while the enable is low (section 2 of docs/microarchitecture.md tells what they hold).
//
//   configuration         meaning (rules in brackets)
//   cfg_pixel_tiles       pixel tiles of the run, at least 1 (M1)
//   cfg_channel_tiles     channel tiles of the run, at least 1
//   cfg_results           result cycles of a full channel tile: COLS * ROWS / LANES, of the vector
//                         unit FEED * ROWS / LANES (D1)
//   cfg_results_last      result cycles of the last channel tile
//   cfg_feed_base, cfg_stream_base, cfg_activation_base, cfg_output_base
//                         first address of the run in each memory; those of the feed and
//                         stream memories are {beat, place} (see next_address)
//   cfg_first_channel     output channel of the run's first column: its codes go to word
//                         cfg_first_channel / FEED, lane cfg_first_channel mod FEED of a pixel (M6)
//   cfg_parameter_base    address of channel 0's parameters, modulo 2^PARAM_ADDR_W
//   cfg_in_words          words of FEED input channels of a pixel (M2)
//   cfg_out_words         words of FEED output channels of a pixel (M6)
//   cfg_start_y .. cfg_end_x, cfg_height, cfg_width
//                         image geometry, see pixel_walker; size of the input image (F4)
//   cfg_input_signed      input codes are two's complement
//   cfg_input_zero_point, cfg_output_zero_point
//   cfg_rounding, cfg_minimum, cfg_maximum
//                         see requantizer; the clamp of the output codes
//   cfg_drain             0: keep the accumulators at the end of the run (E4)
//   cfg_mode              0 array, 1 sum, 2 max, 3 add, 4 mul (V2)
//   cfg_shared_parameter  1: all channels use the parameters at cfg_parameter_base
//   cfg_second_offset     add, mul: input zero point of the first operand minus that of the second
//   cfg_left_shift, cfg_first_multiplier .. cfg_second_shift
//                         add: rescaling of the operands, see operand_rescaler
//   cfg_winograd          0 direct, 1 F(2,3), 2 F(4,3); pixels are tiles of outputs then (W1 to W7)
//   cfg_chunk_words, cfg_chunks
//                         words of input channels of a chunk; chunks of a tile (W2)
//
// model: simulator.stepped; rules E1 to E5, V1 to V3.
module layer_engine #(
    // array
    parameter integer ROWS          = 4,
    parameter integer COLS          = 4,
    parameter integer FEED          = 1,
    parameter integer DEPTH         = 1,
    parameter integer PE_KIND       = 0,   // 0 mac, 1 shift_add, 2 ternary
    parameter integer TERMS         = 1,
    parameter integer CODE_W        = 8,   // activation codes
    parameter integer WEIGHT_W      = 9,   // weight minus zero point
    parameter integer SHIFT_W       = 4,
    parameter integer ADV_W         = 4,
    parameter integer ACC_BITS      = 32,
    parameter integer SATURATE      = 0,
    parameter integer EVENTS_W      = 16,
    parameter integer SPILL         = 0,
    parameter integer WIDE_BITS     = 32,
    // vector unit and post-processor
    parameter integer VECTOR        = 1,   // 0: no vector unit
    parameter integer LANES         = 1,
    parameter integer POST_W        = 32,
    // Winograd unit
    parameter integer WINOGRAD      = 0,   // 0: none, 1: F(2,3), 2: F(4,3), 3: both
    parameter integer CHUNK_WORDS   = 64,  // transformed words of a chunk at most
    // memories and loops
    parameter integer FEED_PLACES   = 0,   // feed words in a beat; 0 or 1: plain addresses
    parameter integer STREAM_PLACES = 0,   // stream entries in a beat
    parameter integer FEED_ADDR_W   = 10,
    parameter integer ACT_ADDR_W    = 10,
    parameter integer STREAM_ADDR_W = 10,
    parameter integer PARAM_ADDR_W  = 10,
    parameter integer OUT_ADDR_W    = 10,
    parameter integer TAP_W         = 8,
    parameter integer COORD_W       = 20,
    parameter integer TILE_W        = 16,
    // derived
    localparam integer X_W           = CODE_W + 1,
    localparam integer OPERAND_W     = X_W + (WINOGRAD > 1 ? 7 : WINOGRAD > 0 ? 2 : 0),
    localparam integer CHUNK_W       = $clog2(CHUNK_WORDS / 16 + 1),
    localparam integer LANE_W        = FEED > 1 ? $clog2(FEED) : 1,
    localparam integer ENTRY_CODE_W  = PE_KIND == 0 ? WEIGHT_W :
                                      PE_KIND == 1 ? TERMS * (2 + SHIFT_W) : 2,
    localparam integer ENTRY_W       = 1 + ADV_W + LANE_W + ENTRY_CODE_W,
    localparam integer ROT_W         = ROWS > 1 ? $clog2(ROWS) : 1,
    localparam integer FEED_WORD_W   = 2 + ACT_ADDR_W + ROT_W + 2 * TAP_W,
    localparam integer PARAM_W       = POST_W + 40,
    localparam integer RESULTS_W     = $clog2((COLS > FEED ? COLS : FEED) * (ROWS / LANES) + 1)
) (
    input wire clk,
    input wire rst,

    // control
    input  wire start,
    output wire busy,
    output wire done,

    // configuration
    input wire        [       TILE_W-1:0] cfg_pixel_tiles,
    input wire        [       TILE_W-1:0] cfg_channel_tiles,
    input wire        [    RESULTS_W-1:0] cfg_results,
    input wire        [    RESULTS_W-1:0] cfg_results_last,
    input wire        [  FEED_ADDR_W-1:0] cfg_feed_base,
    input wire        [STREAM_ADDR_W-1:0] cfg_stream_base,
    input wire        [ PARAM_ADDR_W-1:0] cfg_first_channel,
    input wire        [ PARAM_ADDR_W-1:0] cfg_parameter_base,
    input wire        [   ACT_ADDR_W-1:0] cfg_activation_base,
    input wire        [   OUT_ADDR_W-1:0] cfg_output_base,
    input wire        [   ACT_ADDR_W-1:0] cfg_in_words,
    input wire        [   OUT_ADDR_W-1:0] cfg_out_words,
    input wire        [ ROWS*COORD_W-1:0] cfg_start_y,
    input wire        [ ROWS*COORD_W-1:0] cfg_start_x,
    input wire signed [      COORD_W-1:0] cfg_step_y,
    input wire signed [      COORD_W-1:0] cfg_step_x,
    input wire signed [      COORD_W-1:0] cfg_row_y,
    input wire signed [      COORD_W-1:0] cfg_wrap_x,
    input wire signed [      COORD_W-1:0] cfg_pitch_x,
    input wire signed [      COORD_W-1:0] cfg_end_y,
    input wire signed [      COORD_W-1:0] cfg_end_x,
    input wire signed [      COORD_W-1:0] cfg_height,
    input wire signed [      COORD_W-1:0] cfg_width,
    input wire                            cfg_input_signed,
    input wire signed [         CODE_W:0] cfg_input_zero_point,
    input wire signed [         CODE_W:0] cfg_output_zero_point,
    input wire        [              2:0] cfg_rounding,
    input wire signed [         CODE_W:0] cfg_minimum,
    input wire signed [         CODE_W:0] cfg_maximum,
    input wire                            cfg_drain,
    input wire        [              2:0] cfg_mode,
    input wire                            cfg_shared_parameter,
    input wire signed [       CODE_W+1:0] cfg_second_offset,
    input wire        [              4:0] cfg_left_shift,
    input wire signed [             31:0] cfg_first_multiplier,
    input wire signed [              7:0] cfg_first_shift,
    input wire signed [             31:0] cfg_second_multiplier,
    input wire signed [              7:0] cfg_second_shift,
    input wire        [              1:0] cfg_winograd,
    input wire        [      CHUNK_W-1:0] cfg_chunk_words,
    input wire        [       TILE_W-1:0] cfg_chunks,

    // feed memory
    output wire                   feed_read,
    output wire [FEED_ADDR_W-1:0] feed_addr,
    input  wire [FEED_WORD_W-1:0] feed_word,

    // activation banks: bank b's address at [b*ACT_ADDR_W], its lane f at [(b*FEED+f)*CODE_W]
    output wire                        act_read,
    output wire [ ROWS*ACT_ADDR_W-1:0] act_addr,
    input  wire [ROWS*FEED*CODE_W-1:0] act_code,

    // stream memories, one a column: {last, advance, lane, code}
    output wire [              COLS-1:0] stream_read,
    output wire [COLS*STREAM_ADDR_W-1:0] stream_addr,
    input  wire [      COLS*ENTRY_W-1:0] stream_entry,

    // parameter memory: {bias, multiplier, shift}
    output wire                    param_read,
    output wire [PARAM_ADDR_W-1:0] param_addr,
    input  wire [     PARAM_W-1:0] param_word,

    // output banks: bit r*FEED+f writes lane f of bank r with code r mod LANES
    output wire [   ROWS*FEED-1:0] out_write,
    output wire [  OUT_ADDR_W-1:0] out_addr,
    output wire [LANES*CODE_W-1:0] out_data,

    // counters of the run
    output wire [31:0] cycles,
    output wire [31:0] compute_cycles,
    output wire [31:0] fill_cycles,
    output wire [31:0] stall_feed_cycles,
    output wire [31:0] drain_cycles,
    output wire [31:0] overflow_events,
    output wire [31:0] overflow_outputs
);
  localparam integer ARRAY_RESULT_W = SPILL > 0 ? WIDE_BITS : ACC_BITS;
  localparam integer RESULT_W = VECTOR != 0 ? POST_W : ARRAY_RESULT_W;
  localparam integer RESULT_COLS = COLS > FEED ? COLS : FEED;
  localparam integer RESULT_COL_W = RESULT_COLS > 1 ? $clog2(RESULT_COLS) : 1;
  localparam integer HANDOFF_W = RESULTS_W + (WINOGRAD > 1 ? 4 : WINOGRAD > 0 ? 2 : 0);
  localparam [1:0] FILL_CYCLES = 2'd3;

  initial begin
    if (CODE_W != 8 && CODE_W != 16) $fatal(1, "CODE_W=%0d must be 8 or 16", CODE_W);
    if (COORD_W <= TAP_W) $fatal(1, "COORD_W=%0d must exceed TAP_W=%0d", COORD_W, TAP_W);
  end

  // Sequence: idle, fill, run, ended (after the last fire), done
  logic busy_q, begin_q, ended_q, done_q;
  logic [1:0] fill_q;  // 1..3 in cycles 1..3, then 0
  wire accept = start && !busy_q;
  wire fire, fire_last, finished;

  assign busy = busy_q;
  assign done = done_q;

  always_ff @(posedge clk) begin
    if (rst) begin
      busy_q  <= 1'b0;
      begin_q <= 1'b0;
      ended_q <= 1'b0;
      done_q  <= 1'b0;
      fill_q  <= '0;
    end else begin
      begin_q <= accept;
      done_q  <= finished || fire_last && !cfg_drain;
      if (accept || done_q) busy_q <= accept;
      if (accept || fire_last) ended_q <= fire_last;
      if (accept) fill_q <= 2'd1;
      else if (fill_q != '0) fill_q <= fill_q == FILL_CYCLES ? '0 : fill_q + 1'b1;
    end
  end

  // E5: counters
  wire issue_any, all_done;

  run_counters u_counters (
      .clk              (clk),
      .rst              (rst),
      .flush            (accept),
      .busy             (busy_q),
      .filling          (fill_q != '0),
      .issue_any        (issue_any),
      .ended            (ended_q || all_done),
      .cycles           (cycles),
      .compute_cycles   (compute_cycles),
      .fill_cycles      (fill_cycles),
      .stall_feed_cycles(stall_feed_cycles),
      .drain_cycles     (drain_cycles)
  );

  // The tile being computed, and its part
  wire pixel_last, channel_last, part_last;
  wire run_last = part_last && pixel_last && channel_last;
  assign fire_last = fire && run_last;

  tile_counter #(
      .TILE_W(TILE_W)
  ) u_tile (
      .clk              (clk),
      .cfg_pixel_tiles  (cfg_pixel_tiles),
      .cfg_channel_tiles(cfg_channel_tiles),
      .load             (begin_q),
      .advance          (fire && part_last),
      .pixel_last       (pixel_last),
      .channel_last     (channel_last)
  );

  // Feeder and the coordinates of the tile that it feeds
  wire feed_valid, feed_ready;
  wire [ROWS*FEED*X_W-1:0] feed_data;
  wire [ROWS-1:0] feed_mask;
  wire feed_last;
  wire [ROWS*COORD_W-1:0] feed_y, feed_x;
  wire [ROWS-1:0] feed_exists;
  wire feed_load, feed_advance;

  pixel_walker #(
      .ROWS   (ROWS),
      .COORD_W(COORD_W)
  ) u_feed_pixels (
      .clk        (clk),
      .cfg_start_y(cfg_start_y),
      .cfg_start_x(cfg_start_x),
      .cfg_step_y (cfg_step_y),
      .cfg_step_x (cfg_step_x),
      .cfg_row_y  (cfg_row_y),
      .cfg_wrap_x (cfg_wrap_x),
      .cfg_pitch_x(cfg_pitch_x),
      .cfg_end_y  (cfg_end_y),
      .cfg_end_x  (cfg_end_x),
      .load       (feed_load),
      .advance    (feed_advance),
      .y          (feed_y),
      .x          (feed_x),
      .exists     (feed_exists)
  );

  feeder #(
      .ROWS       (ROWS),
      .FEED       (FEED),
      .CODE_W     (CODE_W),
      .FEED_ADDR_W(FEED_ADDR_W),
      .FEED_PLACES(FEED_PLACES),
      .ACT_ADDR_W (ACT_ADDR_W),
      .TAP_W      (TAP_W),
      .COORD_W    (COORD_W),
      .TILE_W     (TILE_W)
  ) u_feeder (
      .clk                (clk),
      .rst                (rst),
      .flush              (accept),
      .cfg_pixel_tiles    (cfg_pixel_tiles),
      .cfg_channel_tiles  (cfg_channel_tiles),
      .cfg_feed_base      (cfg_feed_base),
      .cfg_activation_base(cfg_activation_base),
      .cfg_in_words       (cfg_in_words),
      .cfg_zero_point     (cfg_input_zero_point),
      .cfg_signed         (cfg_input_signed),
      .cfg_height         (cfg_height),
      .cfg_width          (cfg_width),
      .pixel_y            (feed_y),
      .pixel_x            (feed_x),
      .pixel_exists       (feed_exists),
      .pixel_load         (feed_load),
      .pixel_advance      (feed_advance),
      .begin_run          (begin_q),
      .feed_read          (feed_read),
      .feed_addr          (feed_addr),
      .feed_word          (feed_word),
      .act_read           (act_read),
      .act_addr           (act_addr),
      .act_code           (act_code),
      .valid              (feed_valid),
      .ready              (feed_ready),
      .data               (feed_data),
      .mask               (feed_mask),
      .last               (feed_last)
  );

  // Words for the array: those of the feeder, or what the input transform makes of them
  wire core_valid, core_ready;
  wire [ROWS*FEED*OPERAND_W-1:0] core_data;
  wire [HANDOFF_W-1:0] fire_results;  // cycles until the next fire may come
  wire [RESULTS_W-1:0] results = channel_last ? cfg_results_last : cfg_results;

  genvar operand;
  generate
    if (WINOGRAD != 0) begin : g_winograd
      wire winograd = cfg_winograd != 2'd0;
      wire patch_ready, patch_valid;
      wire [ROWS*FEED*OPERAND_W-1:0] patch_data, feed_wide;
      wire part_first;
      wire [2:0] tap_row, tap_column;
      wire unused_part = ^{part_first, tap_row, tap_column};

      input_transform #(
          .FORMS  (WINOGRAD),
          .LANES  (ROWS * FEED),
          .X_W    (X_W),
          .HALF   (CHUNK_WORDS),
          .WORDS_W(ACT_ADDR_W)
      ) u_transform (
          .clk            (clk),
          .rst            (rst),
          .flush          (accept),
          .cfg_form4      (cfg_winograd[1]),
          .cfg_words      (cfg_in_words),
          .cfg_chunk_words(cfg_chunk_words),
          .in_valid       (feed_valid && winograd),
          .in_ready       (patch_ready),
          .in_data        (feed_data),
          .out_valid      (patch_valid),
          .out_ready      (core_ready && winograd),
          .out_data       (patch_data)
      );

      part_counter #(
          .CHUNKS_W(TILE_W)
      ) u_part (
          .clk         (clk),
          .cfg_winograd(cfg_winograd),
          .cfg_chunks  (cfg_chunks),
          .load        (begin_q),
          .advance     (fire),
          .first       (part_first),
          .last        (part_last),
          .tap_row     (tap_row),
          .tap_column  (tap_column)
      );

      assign feed_ready = winograd ? patch_ready : core_ready;
      assign core_valid = winograd ? patch_valid : feed_valid;
      assign core_data  = winograd ? patch_data : feed_wide;

      // W5: a tile's last results take as many cycles as they have outputs.
      wire [HANDOFF_W-1:0] all_results = HANDOFF_W'(results);
      wire [HANDOFF_W-1:0] least = all_results == HANDOFF_W'(1) ? HANDOFF_W'(2) : all_results;
      assign fire_results = !winograd ? all_results : !part_last ? least :
          cfg_winograd[1] ? all_results << 4 : all_results << 2;

      for (operand = 0; operand < ROWS * FEED; operand = operand + 1) begin : g_operand
        assign feed_wide[operand*OPERAND_W+:OPERAND_W] =
            OPERAND_W'($signed(feed_data[operand*X_W+:X_W]));
      end
    end else begin : g_direct
      wire unused = ^{cfg_chunk_words};
      assign feed_ready   = core_ready;
      assign core_valid   = feed_valid;
      assign core_data    = feed_data;
      assign fire_results = results;
      assign part_last    = 1'b1;
    end
  endgenerate

  // Array and vector unit
  wire handoff_ready;
  wire [RESULT_COL_W-1:0] result_col;
  wire [ROWS*RESULT_W-1:0] result;
  wire [ROWS-1:0] result_overflow;
  wire [ROWS*EVENTS_W-1:0] result_events;

  engine_core #(
      .ROWS         (ROWS),
      .COLS         (COLS),
      .FEED         (FEED),
      .DEPTH        (DEPTH),
      .PE_KIND      (PE_KIND),
      .TERMS        (TERMS),
      .CODE_W       (CODE_W),
      .X_W          (OPERAND_W),
      .WEIGHT_W     (WEIGHT_W),
      .SHIFT_W      (SHIFT_W),
      .ADV_W        (ADV_W),
      .ACC_BITS     (ACC_BITS),
      .SATURATE     (SATURATE),
      .EVENTS_W     (EVENTS_W),
      .SPILL        (SPILL),
      .WIDE_BITS    (WIDE_BITS),
      .VECTOR       (VECTOR),
      .POST_W       (POST_W),
      .TAP_W        (TAP_W),
      .STREAM_PLACES(STREAM_PLACES),
      .STREAM_ADDR_W(STREAM_ADDR_W)
  ) u_core (
      .clk            (clk),
      .rst            (rst),
      .flush          (accept),
      .cfg_mode       (cfg_mode),
      .cfg_drain      (cfg_drain),
      .cfg_stream_base(cfg_stream_base),
      .begin_run      (begin_q),
      .part_last      (part_last),
      .pixel_last     (pixel_last),
      .run_last       (run_last),
      .feed_valid     (core_valid),
      .feed_ready     (core_ready),
      .feed_data      (core_data),
      .feed_mask      (feed_mask),
      .feed_last      (feed_last),
      .stream_read    (stream_read),
      .stream_addr    (stream_addr),
      .stream_entry   (stream_entry),
      .handoff_ready  (handoff_ready),
      .fire           (fire),
      .issue_any      (issue_any),
      .all_done       (all_done),
      .result_col     (result_col),
      .result         (result),
      .result_overflow(result_overflow),
      .result_events  (result_events)
  );

  // Drain and the rows of the tile that it drains
  wire [ROWS*COORD_W-1:0] unused_y, unused_x;
  wire [ROWS-1:0] drain_exists;
  wire drain_load, drain_advance;

  pixel_walker #(
      .ROWS   (ROWS),
      .COORD_W(COORD_W)
  ) u_drain_pixels (
      .clk        (clk),
      .cfg_start_y(cfg_start_y),
      .cfg_start_x(cfg_start_x),
      .cfg_step_y (cfg_step_y),
      .cfg_step_x (cfg_step_x),
      .cfg_row_y  (cfg_row_y),
      .cfg_wrap_x (cfg_wrap_x),
      .cfg_pitch_x(cfg_pitch_x),
      .cfg_end_y  (cfg_end_y),
      .cfg_end_x  (cfg_end_x),
      .load       (drain_load),
      .advance    (drain_advance),
      .y          (unused_y),
      .x          (unused_x),
      .exists     (drain_exists)
  );

  drain #(
      .ROWS        (ROWS),
      .COLS        (RESULT_COLS),
      .FEED        (FEED),
      .LANES       (LANES),
      .CODE_W      (CODE_W),
      .RESULT_W    (RESULT_W),
      .EVENTS_W    (EVENTS_W),
      .VECTOR      (VECTOR),
      .POST_W      (POST_W),
      .PARAM_ADDR_W(PARAM_ADDR_W),
      .OUT_ADDR_W  (OUT_ADDR_W),
      .TILE_W      (TILE_W),
      .WINOGRAD    (WINOGRAD),
      .SUM_W       (ARRAY_RESULT_W)
  ) u_drain (
      .clk                  (clk),
      .rst                  (rst),
      .flush                (accept),
      .cfg_pixel_tiles      (cfg_pixel_tiles),
      .cfg_channel_tiles    (cfg_channel_tiles),
      .cfg_results          (cfg_results),
      .cfg_results_last     (cfg_results_last),
      .cfg_first_channel    (cfg_first_channel),
      .cfg_parameter_base   (cfg_parameter_base),
      .cfg_shared_parameter (cfg_shared_parameter),
      .cfg_output_base      (cfg_output_base),
      .cfg_out_words        (cfg_out_words),
      .cfg_rounding         (cfg_rounding),
      .cfg_output_zero_point(cfg_output_zero_point),
      .cfg_minimum          (cfg_minimum),
      .cfg_maximum          (cfg_maximum),
      .cfg_mode             (cfg_mode),
      .cfg_second_offset    (cfg_second_offset),
      .cfg_left_shift       (cfg_left_shift),
      .cfg_first_multiplier (cfg_first_multiplier),
      .cfg_first_shift      (cfg_first_shift),
      .cfg_second_multiplier(cfg_second_multiplier),
      .cfg_second_shift     (cfg_second_shift),
      .cfg_winograd         (cfg_winograd),
      .cfg_chunks           (cfg_chunks),
      .begin_run            (begin_q),
      .fire                 (fire && cfg_drain),
      .fire_results         (fire_results),
      .handoff_ready        (handoff_ready),
      .finished             (finished),
      .pixel_exists         (drain_exists),
      .pixel_load           (drain_load),
      .pixel_advance        (drain_advance),
      .result_col           (result_col),
      .result               (result),
      .result_overflow      (result_overflow),
      .result_events        (result_events),
      .param_read           (param_read),
      .param_addr           (param_addr),
      .param_word           (param_word),
      .out_write            (out_write),
      .out_addr             (out_addr),
      .out_data             (out_data),
      .overflow_events      (overflow_events),
      .overflow_outputs     (overflow_outputs)
  );
endmodule

`default_nettype wire

`default_nettype none

// Reads a tile's results from the shadow registers and sends them to the post-processor.
//
// A fire in cycle t makes its N results ready in cycles t+3 .. t+2+N, column by column and within a
// column groups of LANES rows from row 0; N = columns of the tile * ROWS / LANES (rule D2). The
// next fire is N cycles later at the earliest (`handoff_ready`, rule D1). A result read in cycle u
// is written in cycle u+4, later in mode add (rules D3, V3). Rows without a pixel write nothing and
// count nothing (D4).
//
// With cfg_winograd 1 or 2 results go through the output transform: those of a tile's last part
// take 4 or 16 cycles each, in which the outputs of their tile follow, 3 cycles later (W5, W6).
//
//   port          meaning
//   fire          a tile ends in this cycle and its results are to be drained
//   fire_results  N of that tile; cycles until the next fire may come
//   result_col    column of the array, or lane of the vector unit, that is read
//   finished      the last write of the run is in this cycle
//   others        see post_processor
//
// model: simulator.stepped; rules D1 to D4.
module drain #(
    parameter integer ROWS         = 4,
    parameter integer COLS         = 4,
    parameter integer FEED         = 1,
    parameter integer LANES        = 1,   // requantizers, a divisor of ROWS
    parameter integer CODE_W       = 8,   // output codes
    parameter integer RESULT_W     = 32,  // POST_W where VECTOR is 1
    parameter integer EVENTS_W     = 16,
    parameter integer VECTOR       = 0,
    parameter integer POST_W       = 32,  // accumulator plus bias
    parameter integer PARAM_ADDR_W = 10,
    parameter integer OUT_ADDR_W   = 10,
    parameter integer TILE_W       = 16,
    parameter integer WINOGRAD     = 0,   // 0: none, 1: F(2,3), 2: F(4,3), 3: both
    parameter integer SUM_W        = 32,  // results of the array, at most RESULT_W
    // derived
    parameter integer COL_W        = COLS > 1 ? $clog2(COLS) : 1,
    parameter integer RESULTS_W    = $clog2(COLS * (ROWS / LANES) + 1),
    parameter integer HANDOFF_W    = RESULTS_W + (WINOGRAD > 1 ? 4 : WINOGRAD > 0 ? 2 : 0)
) (
    input wire clk,
    input wire rst,
    input wire flush,

    // configuration, see layer_engine
    input wire        [      TILE_W-1:0] cfg_pixel_tiles,
    input wire        [      TILE_W-1:0] cfg_channel_tiles,
    input wire        [   RESULTS_W-1:0] cfg_results,
    input wire        [   RESULTS_W-1:0] cfg_results_last,
    input wire        [PARAM_ADDR_W-1:0] cfg_first_channel,
    input wire        [PARAM_ADDR_W-1:0] cfg_parameter_base,
    input wire                           cfg_shared_parameter,
    input wire        [  OUT_ADDR_W-1:0] cfg_output_base,
    input wire        [  OUT_ADDR_W-1:0] cfg_out_words,
    input wire        [             2:0] cfg_rounding,
    input wire signed [        CODE_W:0] cfg_output_zero_point,
    input wire signed [        CODE_W:0] cfg_minimum,
    input wire signed [        CODE_W:0] cfg_maximum,
    input wire        [             2:0] cfg_mode,
    input wire signed [      CODE_W+1:0] cfg_second_offset,
    input wire        [             4:0] cfg_left_shift,
    input wire signed [            31:0] cfg_first_multiplier,
    input wire signed [             7:0] cfg_first_shift,
    input wire signed [            31:0] cfg_second_multiplier,
    input wire signed [             7:0] cfg_second_shift,
    input wire        [             1:0] cfg_winograd,
    input wire        [      TILE_W-1:0] cfg_chunks,

    // control
    input  wire                 begin_run,
    input  wire                 fire,
    input  wire [HANDOFF_W-1:0] fire_results,
    output wire                 handoff_ready,
    output wire                 finished,

    // which rows of the drained tile hold a pixel
    input  wire [ROWS-1:0] pixel_exists,
    output wire            pixel_load,
    output wire            pixel_advance,

    // shadow registers
    output wire [        COL_W-1:0] result_col,
    input  wire [ROWS*RESULT_W-1:0] result,
    input  wire [         ROWS-1:0] result_overflow,
    input  wire [ROWS*EVENTS_W-1:0] result_events,

    // parameter memory
    output wire                    param_read,
    output wire [PARAM_ADDR_W-1:0] param_addr,
    input  wire [   POST_W+40-1:0] param_word,

    // output memory
    output wire [   ROWS*FEED-1:0] out_write,
    output wire [  OUT_ADDR_W-1:0] out_addr,
    output wire [LANES*CODE_W-1:0] out_data,

    // overflow of the run so far
    output wire [31:0] overflow_events,
    output wire [31:0] overflow_outputs
);
  localparam integer GROUPS = ROWS / LANES;
  localparam integer GROUP_W = GROUPS > 1 ? $clog2(GROUPS) : 1;
  localparam integer CHANNEL_W = PARAM_ADDR_W > OUT_ADDR_W ? PARAM_ADDR_W : OUT_ADDR_W;
  localparam integer ADDR_W = COLS * GROUPS > 1 ? $clog2(COLS * GROUPS) : 1;
  localparam integer LANE_LOG = $clog2(FEED);
  localparam integer LANE_W = FEED > 1 ? LANE_LOG : 1;
  localparam [GROUP_W-1:0] LAST_GROUP = GROUP_W'(GROUPS - 1);
  localparam [PARAM_ADDR_W-1:0] LANE_MASK = PARAM_ADDR_W'(FEED - 1);

  initial begin
    if (LANES < 1 || ROWS % LANES != 0) begin
      $fatal(1, "LANES=%0d must divide ROWS=%0d", LANES, ROWS);
    end
  end

  // D1: results of the last fire that are not yet read
  logic [HANDOFF_W-1:0] handoff_count_q;
  assign handoff_ready = handoff_count_q == '0;

  always_ff @(posedge clk) begin
    if (rst || flush) handoff_count_q <= '0;
    else if (fire) handoff_count_q <= fire_results - 1'b1;
    else if (!handoff_ready) handoff_count_q <= handoff_count_q - 1'b1;
  end

  // D2: reading. The shadow registers are filled two cycles after the fire.
  logic fire_q, fire_q2;
  logic reading_q;
  logic [RESULTS_W-1:0] index_q;
  logic [COL_W-1:0] col_q;
  logic [GROUP_W-1:0] group_q;

  wire pixel_last, channel_last;
  wire [RESULTS_W-1:0] results = channel_last ? cfg_results_last : cfg_results;
  wire part_first, part_last;
  wire [2:0] tap_row, tap_column;
  wire result_end;  // the result is read in its last cycle
  wire col_end = result_end && group_q == LAST_GROUP;
  wire part_end = reading_q && result_end && index_q == results - 1'b1;
  wire tile_end = part_end && part_last;

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      fire_q    <= 1'b0;
      fire_q2   <= 1'b0;
      reading_q <= 1'b0;
    end else begin
      fire_q  <= fire;
      fire_q2 <= fire_q;
      if (fire_q2 || part_end) reading_q <= fire_q2;
    end
    if (fire_q2) begin
      index_q <= '0;
      col_q   <= '0;
      group_q <= '0;
    end else if (reading_q && result_end) begin
      index_q <= index_q + 1'b1;
      group_q <= col_end ? '0 : group_q + 1'b1;
      if (col_end) col_q <= col_q + 1'b1;
    end
  end

  tile_counter #(
      .TILE_W(TILE_W)
  ) u_tile (
      .clk              (clk),
      .cfg_pixel_tiles  (cfg_pixel_tiles),
      .cfg_channel_tiles(cfg_channel_tiles),
      .load             (begin_run),
      .advance          (tile_end),
      .pixel_last       (pixel_last),
      .channel_last     (channel_last)
  );

  assign pixel_load = begin_run || tile_end && pixel_last;
  assign pixel_advance = tile_end;
  assign result_col = col_q;

  // Channel of the column being read, and where its codes go
  logic [PARAM_ADDR_W-1:0] channel_q;
  logic [PARAM_ADDR_W-1:0] first_channel_q;  // of the channel tile
  logic [OUT_ADDR_W-1:0] tile_base_q;
  wire [PARAM_ADDR_W-1:0] following = channel_q + 1'b1;

  always_ff @(posedge clk) begin
    if (begin_run) begin
      channel_q       <= cfg_first_channel;
      first_channel_q <= cfg_first_channel;
    end else if (part_end) begin
      channel_q <= part_last && pixel_last ? following : first_channel_q;
      if (part_last && pixel_last) first_channel_q <= following;
    end else if (reading_q && col_end) begin
      channel_q <= following;
    end
    if (pixel_load) tile_base_q <= cfg_output_base;
    else if (pixel_advance) tile_base_q <= tile_base_q + tile_words;
  end

  // The group of rows being read, and its overflow
  logic [LANES*RESULT_W-1:0] group_result;
  logic [LANES*EVENTS_W-1:0] group_events;
  logic [LANES-1:0] group_overflow, group_exists;

  always_comb begin
    group_result   = '0;
    group_events   = '0;
    group_overflow = '0;
    group_exists   = '0;
    for (int g = 0; g < GROUPS; g++) begin
      if (group_q == GROUP_W'(g)) begin
        group_result   = result[g*LANES*RESULT_W+:LANES*RESULT_W];
        group_events   = result_events[g*LANES*EVENTS_W+:LANES*EVENTS_W];
        group_overflow = result_overflow[g*LANES+:LANES];
        group_exists   = pixel_exists[g*LANES+:LANES];
      end
    end
  end

  overflow_counters #(
      .LANES   (LANES),
      .EVENTS_W(EVENTS_W)
  ) u_overflow (
      .clk        (clk),
      .rst        (rst),
      .flush      (flush),
      .read       (reading_q && result_end),
      .in_exists  (group_exists),
      .in_overflow(group_overflow),
      .in_events  (group_events),
      .events     (overflow_events),
      .outputs    (overflow_outputs)
  );

  // What the post-processor reads: results, or the outputs that the transform makes of them
  localparam integer TICKET_W = 2 + LANES + GROUP_W + LANE_W + OUT_ADDR_W + PARAM_ADDR_W;
  wire [CHANNEL_W-1:0] channel = CHANNEL_W'(channel_q);
  wire [OUT_ADDR_W-1:0] tile_words, output_words;  // of a tile, before this output of the tile
  // A wire of its own: Yosys 0.23 takes a cast sum in a concatenation for as wide as what is cast.
  wire [OUT_ADDR_W-1:0] word_addr = tile_base_q + output_words + OUT_ADDR_W'(channel >> LANE_LOG);
  wire [TICKET_W-1:0] ticket_now = {
    reading_q && part_last,
    tile_end && pixel_last && channel_last,
    group_exists,
    group_q,
    LANE_W'(channel_q & LANE_MASK),
    word_addr,
    cfg_parameter_base + (cfg_shared_parameter ? '0 : channel_q)
  };
  wire [TICKET_W-1:0] ticket;
  wire post_read, post_end;
  wire [LANES-1:0] post_exists;
  wire [GROUP_W-1:0] post_group;
  wire [LANE_W-1:0] post_lane;
  wire [OUT_ADDR_W-1:0] post_addr;
  wire [PARAM_ADDR_W-1:0] post_param;
  wire [LANES*RESULT_W-1:0] post_result;
  assign {post_read, post_end, post_exists, post_group, post_lane, post_addr, post_param} = ticket;

  generate
    if (WINOGRAD != 0) begin : g_winograd
      localparam integer TRANSFORM_CYCLES = 3;
      wire winograd = cfg_winograd != 2'd0;
      wire form4 = cfg_winograd[1];
      wire [3:0] last_phase = !winograd || !part_last ? 4'd0 : form4 ? 4'd15 : 4'd3;
      logic [3:0] phase_q, phase_q2, phase_q3;
      logic [OUT_ADDR_W-1:0] output_words_q;
      wire [TICKET_W-1:0] ticket_late;
      wire [LANES*RESULT_W-1:0] outputs;

      part_counter #(
          .CHUNKS_W(TILE_W)
      ) u_part (
          .clk         (clk),
          .cfg_winograd(cfg_winograd),
          .cfg_chunks  (cfg_chunks),
          .load        (begin_run),
          .advance     (part_end),
          .first       (part_first),
          .last        (part_last),
          .tap_row     (tap_row),
          .tap_column  (tap_column)
      );

      assign result_end   = phase_q == last_phase;
      assign tile_words   = cfg_out_words << (!winograd ? 3'd0 : form4 ? 3'd4 : 3'd2);
      assign output_words = output_words_q;

      always_ff @(posedge clk) begin
        if (!reading_q || result_end) begin
          phase_q        <= '0;
          output_words_q <= '0;
        end else begin
          phase_q        <= phase_q + 1'b1;
          output_words_q <= output_words_q + cfg_out_words;
        end
        phase_q2 <= phase_q;
        phase_q3 <= phase_q2;
      end

      output_transform #(
          .FORMS   (WINOGRAD),
          .LANES   (LANES),
          .RESULT_W(RESULT_W),
          .SUM_W   (SUM_W),
          .DEPTH   (COLS * GROUPS)
      ) u_transform (
          .clk          (clk),
          .cfg_form4    (form4),
          .in_valid     (reading_q && phase_q == '0),
          .in_first     (part_first),
          .in_tap_row   (tap_row),
          .in_tap_column(tap_column),
          .in_addr      (ADDR_W'(index_q)),
          .in_result    (group_result),
          .out_phase    (phase_q3),
          .out_result   (outputs)
      );

      delay_line #(
          .WIDTH (TICKET_W),
          .STAGES(TRANSFORM_CYCLES)
      ) u_delay (
          .clk(clk),
          .rst(rst || flush),
          .in (ticket_now),
          .out(ticket_late)
      );

      assign ticket      = winograd ? ticket_late : ticket_now;
      assign post_result = winograd ? outputs : group_result;
    end else begin : g_direct
      wire unused = ^{cfg_winograd, cfg_chunks, part_first, tap_row, tap_column};
      assign {part_first, part_last, result_end} = '1;
      assign {tap_row, tap_column} = '0;
      assign tile_words   = cfg_out_words;
      assign output_words = '0;
      assign ticket       = ticket_now;
      assign post_result  = group_result;
    end
  endgenerate

  post_processor #(
      .ROWS        (ROWS),
      .FEED        (FEED),
      .LANES       (LANES),
      .CODE_W      (CODE_W),
      .RESULT_W    (RESULT_W),
      .POST_W      (POST_W),
      .VECTOR      (VECTOR),
      .PARAM_ADDR_W(PARAM_ADDR_W),
      .OUT_ADDR_W  (OUT_ADDR_W)
  ) u_post (
      .clk                  (clk),
      .rst                  (rst),
      .flush                (flush),
      .cfg_mode             (cfg_mode),
      .cfg_rounding         (cfg_rounding),
      .cfg_output_zero_point(cfg_output_zero_point),
      .cfg_minimum          (cfg_minimum),
      .cfg_maximum          (cfg_maximum),
      .cfg_second_offset    (cfg_second_offset),
      .cfg_left_shift       (cfg_left_shift),
      .cfg_first_multiplier (cfg_first_multiplier),
      .cfg_first_shift      (cfg_first_shift),
      .cfg_second_multiplier(cfg_second_multiplier),
      .cfg_second_shift     (cfg_second_shift),
      .in_read              (post_read),
      .in_end               (post_end),
      .in_exists            (post_exists),
      .in_group             (post_group),
      .in_lane              (post_lane),
      .in_addr              (post_addr),
      .in_param             (post_param),
      .in_result            (post_result),
      .param_read           (param_read),
      .param_addr           (param_addr),
      .param_word           (param_word),
      .out_write            (out_write),
      .out_addr             (out_addr),
      .out_data             (out_data),
      .finished             (finished)
  );
endmodule

`default_nettype wire

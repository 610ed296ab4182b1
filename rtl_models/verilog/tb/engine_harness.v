`default_nettype none

// Simulation only: memories around layer_engine, loaded from and written to files.
//
// Runs the engine +runs=N times. Reads, in the working folder:
//   configuration.hex   the values of the configuration ports of every run, one a line, in the order
//                       of rtl_models.parameters.CONFIGURATION
//   feed.hex, parameters.hex, activation_<bank>.hex, stream_<column>.hex
//                       memory images; words not given stay unknown (X)
// and writes
//   output_<bank>.hex   output memories
//   written_<bank>.hex  a bit for each lane of them: it was written out of reset
//   counters.txt        per run: cycles, compute, fill, stall_feed, drain, overflow events, outputs
//   trace.txt           with TRACE defined: signals and registers of every cycle of every run, one
//                       line a cycle, in the order of rtl_models.trace.FIELDS; the line after the
//                       last cycle shows what that left in the registers
//   waves.fst           with +waves, from vvp -fst
//
// +reset_at=K asserts reset in cycle K of the first run, then starts all over.
// +limit=K: a run that is not done in cycle K is the last one and leaves no counters.
module engine_harness #(
    parameter integer ROWS          = 4,
    parameter integer COLS          = 4,
    parameter integer FEED          = 1,
    parameter integer DEPTH         = 1,
    parameter integer PE_KIND       = 0,
    parameter integer TERMS         = 1,
    parameter integer CODE_W        = 8,
    parameter integer WEIGHT_W      = 9,
    parameter integer ACC_BITS      = 32,
    parameter integer SATURATE      = 0,
    parameter integer EVENTS_W      = 16,
    parameter integer SPILL         = 0,
    parameter integer WIDE_BITS     = 32,
    parameter integer LANES         = 1,
    parameter integer POST_W        = 32,
    parameter integer WINOGRAD      = 0,   // direct runs only
    parameter integer CHUNK_WORDS   = 64,
    parameter integer VECTOR        = 1,
    parameter integer FEED_PLACES   = 0,
    parameter integer STREAM_PLACES = 0,
    parameter integer FEED_ADDR_W   = 10,
    parameter integer ACT_ADDR_W    = 10,
    parameter integer STREAM_ADDR_W = 10,
    parameter integer PARAM_ADDR_W  = 10,
    parameter integer OUT_ADDR_W    = 10,
    parameter integer COORD_W       = 20,
    parameter integer TILE_W        = 16,
    // words of the memories
    parameter integer FEED_WORDS    = 1024,
    parameter integer ACT_WORDS     = 1024,
    parameter integer STREAM_WORDS  = 1024,
    parameter integer PARAM_WORDS   = 1024,
    parameter integer OUT_WORDS     = 1024
);
  localparam integer LANE_W = FEED > 1 ? $clog2(FEED) : 1;
  localparam integer ENTRY_CODE_W = PE_KIND == 0 ? WEIGHT_W : PE_KIND == 1 ? TERMS * 6 : 2;
  localparam integer ENTRY_W = 5 + LANE_W + ENTRY_CODE_W;
  localparam integer ROT_W = ROWS > 1 ? $clog2(ROWS) : 1;
  localparam integer FEED_WORD_W = 2 + ACT_ADDR_W + ROT_W + 16;
  localparam integer PARAM_W = POST_W + 40;
  localparam integer RESULTS_W = $clog2((COLS > FEED ? COLS : FEED) * (ROWS / LANES) + 1);

  reg clk = 1'b0;
  reg rst = 1'b1;
  reg start = 1'b0;
  wire busy, done;

  // Configuration
  reg [TILE_W-1:0] cfg_pixel_tiles, cfg_channel_tiles;
  reg [RESULTS_W-1:0] cfg_results, cfg_results_last;
  reg [FEED_ADDR_W-1:0] cfg_feed_base;
  reg [STREAM_ADDR_W-1:0] cfg_stream_base;
  reg [PARAM_ADDR_W-1:0] cfg_first_channel, cfg_parameter_base;
  reg [ACT_ADDR_W-1:0] cfg_activation_base, cfg_in_words;
  reg [OUT_ADDR_W-1:0] cfg_output_base, cfg_out_words;
  reg [ROWS*COORD_W-1:0] cfg_start_y, cfg_start_x;
  reg [COORD_W-1:0] cfg_step_y, cfg_step_x, cfg_row_y, cfg_wrap_x, cfg_pitch_x;
  reg [COORD_W-1:0] cfg_end_y, cfg_end_x, cfg_height, cfg_width;
  reg cfg_input_signed, cfg_drain;
  reg [CODE_W:0] cfg_input_zero_point, cfg_output_zero_point, cfg_minimum, cfg_maximum;
  reg [2:0] cfg_rounding, cfg_mode;
  reg cfg_shared_parameter;
  reg [CODE_W+1:0] cfg_second_offset;
  reg [4:0] cfg_left_shift;
  reg [31:0] cfg_first_multiplier, cfg_second_multiplier;
  reg [7:0] cfg_first_shift, cfg_second_shift;

  // Memories
  wire feed_read, act_read, param_read;
  wire [FEED_ADDR_W-1:0] feed_addr;
  wire [ROWS*ACT_ADDR_W-1:0] act_addr;
  wire [PARAM_ADDR_W-1:0] param_addr;
  wire [COLS-1:0] stream_read;
  wire [COLS*STREAM_ADDR_W-1:0] stream_addr;
  wire [ROWS*FEED-1:0] out_write;
  wire [OUT_ADDR_W-1:0] out_addr;
  wire [LANES*CODE_W-1:0] out_data;
  reg [FEED_WORD_W-1:0] feed_word;
  reg [PARAM_W-1:0] param_word;
  wire [ROWS*FEED*CODE_W-1:0] act_code;
  wire [COLS*ENTRY_W-1:0] stream_entry;

  reg [FEED_WORD_W-1:0] feed_memory[0:FEED_WORDS-1];
  reg [PARAM_W-1:0] param_memory[0:PARAM_WORDS-1];

  always @(posedge clk) begin
    if (feed_read) feed_word <= feed_memory[feed_addr];
    if (param_read) param_word <= param_memory[param_addr];
  end

  initial begin
    $readmemh("feed.hex", feed_memory);
    $readmemh("parameters.hex", param_memory);
  end

  event write_back;
  genvar row, col, lane;
  generate
    for (row = 0; row < ROWS; row = row + 1) begin : g_bank
      reg [FEED*CODE_W-1:0] act_memory[0:ACT_WORDS-1];
      reg [FEED*CODE_W-1:0] act_q;
      wire [ACT_ADDR_W-1:0] addr = act_addr[row*ACT_ADDR_W+:ACT_ADDR_W];
      assign act_code[row*FEED*CODE_W+:FEED*CODE_W] = act_q;
      always @(posedge clk) if (act_read) act_q <= act_memory[addr];
      initial $readmemh($sformatf("activation_%0d.hex", row), act_memory);

      reg [FEED*CODE_W-1:0] out_memory[0:OUT_WORDS-1];
      wire [CODE_W-1:0] code = out_data[(row%LANES)*CODE_W+:CODE_W];
      reg [FEED-1:0] written[0:OUT_WORDS-1];
      integer word;
      initial for (word = 0; word < OUT_WORDS; word = word + 1) written[word] = '0;
      for (lane = 0; lane < FEED; lane = lane + 1) begin : g_lane
        always @(posedge clk) begin
          if (!rst && out_write[row*FEED+lane]) begin
            out_memory[out_addr][lane*CODE_W+:CODE_W] <= code;
            written[out_addr][lane] <= 1'b1;
          end
        end
      end
      always @(write_back) begin
        $writememh($sformatf("output_%0d.hex", row), out_memory);
        $writememh($sformatf("written_%0d.hex", row), written);
      end
    end

    for (col = 0; col < COLS; col = col + 1) begin : g_stream
      reg [ENTRY_W-1:0] memory[0:STREAM_WORDS-1];
      reg [ENTRY_W-1:0] entry_q;
      wire [STREAM_ADDR_W-1:0] addr = stream_addr[col*STREAM_ADDR_W+:STREAM_ADDR_W];
      assign stream_entry[col*ENTRY_W+:ENTRY_W] = entry_q;
      always @(posedge clk) if (stream_read[col]) entry_q <= memory[addr];
      initial $readmemh($sformatf("stream_%0d.hex", col), memory);
    end
  endgenerate

  wire [31:0] cycles, compute_cycles, fill_cycles, stall_feed_cycles, drain_cycles;
  wire [31:0] overflow_events, overflow_outputs;

  layer_engine #(
      .ROWS         (ROWS),
      .COLS         (COLS),
      .FEED         (FEED),
      .DEPTH        (DEPTH),
      .PE_KIND      (PE_KIND),
      .TERMS        (TERMS),
      .CODE_W       (CODE_W),
      .WEIGHT_W     (WEIGHT_W),
      .ACC_BITS     (ACC_BITS),
      .SATURATE     (SATURATE),
      .EVENTS_W     (EVENTS_W),
      .SPILL        (SPILL),
      .WIDE_BITS    (WIDE_BITS),
      .LANES        (LANES),
      .POST_W       (POST_W),
      .WINOGRAD     (WINOGRAD),
      .CHUNK_WORDS  (CHUNK_WORDS),
      .VECTOR       (VECTOR),
      .FEED_PLACES  (FEED_PLACES),
      .STREAM_PLACES(STREAM_PLACES),
      .FEED_ADDR_W  (FEED_ADDR_W),
      .ACT_ADDR_W   (ACT_ADDR_W),
      .STREAM_ADDR_W(STREAM_ADDR_W),
      .PARAM_ADDR_W (PARAM_ADDR_W),
      .OUT_ADDR_W   (OUT_ADDR_W),
      .COORD_W      (COORD_W),
      .TILE_W       (TILE_W)
  ) u_engine (
      .clk                  (clk),
      .rst                  (rst),
      .start                (start),
      .busy                 (busy),
      .done                 (done),
      .cfg_pixel_tiles      (cfg_pixel_tiles),
      .cfg_channel_tiles    (cfg_channel_tiles),
      .cfg_results          (cfg_results),
      .cfg_results_last     (cfg_results_last),
      .cfg_feed_base        (cfg_feed_base),
      .cfg_stream_base      (cfg_stream_base),
      .cfg_first_channel    (cfg_first_channel),
      .cfg_parameter_base   (cfg_parameter_base),
      .cfg_activation_base  (cfg_activation_base),
      .cfg_output_base      (cfg_output_base),
      .cfg_in_words         (cfg_in_words),
      .cfg_out_words        (cfg_out_words),
      .cfg_start_y          (cfg_start_y),
      .cfg_start_x          (cfg_start_x),
      .cfg_step_y           (cfg_step_y),
      .cfg_step_x           (cfg_step_x),
      .cfg_row_y            (cfg_row_y),
      .cfg_wrap_x           (cfg_wrap_x),
      .cfg_pitch_x          (cfg_pitch_x),
      .cfg_end_y            (cfg_end_y),
      .cfg_end_x            (cfg_end_x),
      .cfg_height           (cfg_height),
      .cfg_width            (cfg_width),
      .cfg_input_signed     (cfg_input_signed),
      .cfg_input_zero_point (cfg_input_zero_point),
      .cfg_output_zero_point(cfg_output_zero_point),
      .cfg_rounding         (cfg_rounding),
      .cfg_minimum          (cfg_minimum),
      .cfg_maximum          (cfg_maximum),
      .cfg_drain            (cfg_drain),
      .cfg_mode             (cfg_mode),
      .cfg_shared_parameter (cfg_shared_parameter),
      .cfg_second_offset    (cfg_second_offset),
      .cfg_left_shift       (cfg_left_shift),
      .cfg_first_multiplier (cfg_first_multiplier),
      .cfg_first_shift      (cfg_first_shift),
      .cfg_second_multiplier(cfg_second_multiplier),
      .cfg_second_shift     (cfg_second_shift),
      .cfg_winograd         (2'd0),
      .cfg_chunk_words      ('0),
      .cfg_chunks           ('0),
      .feed_read            (feed_read),
      .feed_addr            (feed_addr),
      .feed_word            (feed_word),
      .act_read             (act_read),
      .act_addr             (act_addr),
      .act_code             (act_code),
      .stream_read          (stream_read),
      .stream_addr          (stream_addr),
      .stream_entry         (stream_entry),
      .param_read           (param_read),
      .param_addr           (param_addr),
      .param_word           (param_word),
      .out_write            (out_write),
      .out_addr             (out_addr),
      .out_data             (out_data),
      .cycles               (cycles),
      .compute_cycles       (compute_cycles),
      .fill_cycles          (fill_cycles),
      .stall_feed_cycles    (stall_feed_cycles),
      .drain_cycles         (drain_cycles),
      .overflow_events      (overflow_events),
      .overflow_outputs     (overflow_outputs)
  );

`ifdef TRACE
  // One vector for each field, element 0 lowest; rows before columns.
  localparam integer X_W = CODE_W + 1 + (WINOGRAD > 1 ? 7 : WINOGRAD > 0 ? 2 : 0);
  localparam integer RESULT_W = SPILL > 0 ? WIDE_BITS : ACC_BITS;
  localparam integer OFFSET_W = $clog2(DEPTH + 15);
  localparam integer COUNT_W = SPILL > 0 ? $clog2(SPILL + 1) : 1;
  localparam integer WIDE_W = SPILL > 0 ? WIDE_BITS : 1;

  wire [COLS*OFFSET_W-1:0] t_offset;
  wire [COLS*STREAM_ADDR_W-1:0] t_entry;
  wire [ROWS*COLS*X_W-1:0] t_x;
  wire [ROWS*COLS*ENTRY_CODE_W-1:0] t_code;
  wire [ROWS*COLS-1:0] t_step, t_clear, t_overflow, t_result_overflow;
  wire [ROWS*COLS*ACC_BITS-1:0] t_acc;
  wire [ROWS*COLS*EVENTS_W-1:0] t_events, t_result_events;
  wire [ROWS*COLS*WIDE_W-1:0] t_wide;
  wire [ROWS*COLS*COUNT_W-1:0] t_count;
  wire [ROWS*COLS*RESULT_W-1:0] t_result;
  wire [ROWS-1:0] t_mask;

  genvar r, c;
  generate
    for (c = 0; c < COLS; c = c + 1) begin : g_trace_col
      assign t_offset[c*OFFSET_W+:OFFSET_W] = u_engine.u_core.u_array.g_sequencer[c].u_sequencer.offset_q;
      assign t_entry[c*STREAM_ADDR_W+:STREAM_ADDR_W] = u_engine.u_core.g_col[c].u_stream.addr_q;
    end
    for (r = 0; r < ROWS; r = r + 1) begin : g_trace_row
      assign t_mask[r] = u_engine.u_feeder.g_row[r].mask_q;
      for (c = 0; c < COLS; c = c + 1) begin : g_trace_pe
        localparam integer I = r * COLS + c;
        assign t_x[I*X_W+:X_W] = u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.x_q;
        assign t_code[I*ENTRY_CODE_W+:ENTRY_CODE_W] =
            u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.code_q;
        assign t_step[I] = u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.step_q;
        assign t_clear[I] = u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.clear_q;
        assign t_acc[I*ACC_BITS+:ACC_BITS] =
            u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.u_accumulator.acc_q;
        assign t_overflow[I] = u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.u_accumulator.overflow_q;
        assign t_events[I*EVENTS_W+:EVENTS_W] =
            u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.u_accumulator.events_q;
        assign t_result[I*RESULT_W+:RESULT_W] =
            u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.u_accumulator.result_q;
        assign t_result_overflow[I] =
            u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.u_accumulator.result_overflow_q;
        assign t_result_events[I*EVENTS_W+:EVENTS_W] =
            u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.u_accumulator.result_events_q;
        if (SPILL > 0) begin : g_spill
          assign t_wide[I*WIDE_W+:WIDE_W] =
              u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.u_accumulator.g_spill.wide_q;
          assign t_count[I*COUNT_W+:COUNT_W] =
              u_engine.u_core.u_array.g_row[r].g_col[c].u_pe.u_accumulator.g_spill.count_q;
        end else begin : g_no_spill
          assign t_wide[I]  = 1'b0;
          assign t_count[I] = 1'b0;
        end
      end
    end
  endgenerate

  integer trace;
  initial trace = $fopen("trace.txt", "w");

  task trace_cycle;
    begin
      $fwrite(trace, "%0d %0d", run, cycle);
      $fwrite(trace, " %h %h %h %h %h %h %h", u_engine.u_feeder.valid, u_engine.u_feeder.ready,
              u_engine.u_core.entry_valid, u_engine.u_core.entry_ready, u_engine.u_core.u_array.issue,
              u_engine.u_core.u_array.release_word, u_engine.fire);
      $fwrite(trace, " %h %h %h %h %h", u_engine.u_feeder.f1_valid_q, u_engine.u_feeder.feed_addr_q,
              u_engine.u_feeder.f2_valid_q, u_engine.u_feeder.rot_q, t_mask);
      $fwrite(trace, " %h", t_entry);
      $fwrite(trace, " %h %h %h %h %h", u_engine.u_core.u_array.n, u_engine.u_core.u_array.words, t_offset,
              u_engine.u_core.u_array.done, u_engine.u_core.u_array.handoff_q);
      $fwrite(trace, " %h %h %h %h", t_x, t_code, t_step, t_clear);
      $fwrite(trace, " %h %h %h %h %h", t_acc, t_overflow, t_events, t_wide, t_count);
      $fwrite(trace, " %h %h %h", t_result, t_result_overflow, t_result_events);
      $fwrite(trace, " %h %h %h", u_engine.u_drain.handoff_count_q, u_engine.u_drain.reading_q,
              u_engine.u_drain.index_q);
      $fwrite(trace, " %h %h %h", {u_engine.u_drain.u_post.codes_valid,
              u_engine.u_drain.u_post.u_requantizer.valid_q2, u_engine.u_drain.u_post.u_requantizer.valid_q,
              u_engine.u_drain.u_post.accs_valid_q}, u_engine.u_drain.u_post.accs_q, out_data);
      $fwrite(trace, " %h %h %h %h %h %h %h\n", fill_cycles, compute_cycles, drain_cycles,
              stall_feed_cycles, overflow_events, overflow_outputs, done);
    end
  endtask
`endif

  // Sequence. Inputs change at the falling edge, so no race decides what a rising edge sees.
  integer configuration, counters, run, runs, cycle, reset_at, limit;
  localparam integer VALUE_W = ROWS * COORD_W > 64 ? ROWS * COORD_W : 64;
  reg [VALUE_W-1:0] value;

  always #5 clk = !clk;

  // Values go through `value`: Verilator 5.006 does not notice what $fscanf writes directly.
  task read_value;
    begin
      if ($fscanf(configuration, "%h", value) != 1) begin
        $display("configuration.hex ends early in run %0d", run);
        $finish;
      end
    end
  endtask

  task configure;
    begin
      read_value;
      cfg_pixel_tiles = value[TILE_W-1:0];
      read_value;
      cfg_channel_tiles = value[TILE_W-1:0];
      read_value;
      cfg_results = value[RESULTS_W-1:0];
      read_value;
      cfg_results_last = value[RESULTS_W-1:0];
      read_value;
      cfg_feed_base = value[FEED_ADDR_W-1:0];
      read_value;
      cfg_stream_base = value[STREAM_ADDR_W-1:0];
      read_value;
      cfg_first_channel = value[PARAM_ADDR_W-1:0];
      read_value;
      cfg_parameter_base = value[PARAM_ADDR_W-1:0];
      read_value;
      cfg_activation_base = value[ACT_ADDR_W-1:0];
      read_value;
      cfg_output_base = value[OUT_ADDR_W-1:0];
      read_value;
      cfg_in_words = value[ACT_ADDR_W-1:0];
      read_value;
      cfg_out_words = value[OUT_ADDR_W-1:0];
      read_value;
      cfg_start_y = value[ROWS*COORD_W-1:0];
      read_value;
      cfg_start_x = value[ROWS*COORD_W-1:0];
      read_value;
      cfg_step_y = value[COORD_W-1:0];
      read_value;
      cfg_step_x = value[COORD_W-1:0];
      read_value;
      cfg_row_y = value[COORD_W-1:0];
      read_value;
      cfg_wrap_x = value[COORD_W-1:0];
      read_value;
      cfg_pitch_x = value[COORD_W-1:0];
      read_value;
      cfg_end_y = value[COORD_W-1:0];
      read_value;
      cfg_end_x = value[COORD_W-1:0];
      read_value;
      cfg_height = value[COORD_W-1:0];
      read_value;
      cfg_width = value[COORD_W-1:0];
      read_value;
      cfg_input_signed = value[0];
      read_value;
      cfg_input_zero_point = value[CODE_W:0];
      read_value;
      cfg_output_zero_point = value[CODE_W:0];
      read_value;
      cfg_rounding = value[2:0];
      read_value;
      cfg_minimum = value[CODE_W:0];
      read_value;
      cfg_maximum = value[CODE_W:0];
      read_value;
      cfg_drain = value[0];
      read_value;
      cfg_mode = value[2:0];
      read_value;
      cfg_shared_parameter = value[0];
      read_value;
      cfg_second_offset = value[CODE_W+1:0];
      read_value;
      cfg_left_shift = value[4:0];
      read_value;
      cfg_first_multiplier = value[31:0];
      read_value;
      cfg_first_shift = value[7:0];
      read_value;
      cfg_second_multiplier = value[31:0];
      read_value;
      cfg_second_shift = value[7:0];
    end
  endtask

  task next_cycle;
    begin
`ifdef TRACE
      trace_cycle;
`endif
      @(negedge clk);
      cycle = cycle + 1;
    end
  endtask

  task reset;
    begin
      rst = 1'b1;
      @(negedge clk);
      rst = 1'b0;
    end
  endtask

  task begin_run;
    begin
      configure;
      start = 1'b1;
      @(negedge clk);
      start = 1'b0;
      cycle = 1;
    end
  endtask

  initial begin
    if (!$value$plusargs("runs=%d", runs)) runs = 1;
    if (!$value$plusargs("reset_at=%d", reset_at)) reset_at = 0;
    if (!$value$plusargs("limit=%d", limit)) limit = 1000000000;
    if ($test$plusargs("waves")) begin
      $dumpfile("waves.fst");
      $dumpvars(0, engine_harness);
    end
    configuration = $fopen("configuration.hex", "r");
    counters = $fopen("counters.txt", "w");
    cycle = 0;
    run = 0;
    @(negedge clk);
    reset;
    if (reset_at > 0) begin
      begin_run;
      while (cycle < reset_at) begin
        @(negedge clk);
        cycle = cycle + 1;
      end
      reset;
      $fclose(configuration);
      configuration = $fopen("configuration.hex", "r");
    end
    for (run = 0; run < runs; run = run + 1) begin
      begin_run;
      while (done !== 1'b1 && cycle < limit) next_cycle;
      if (done !== 1'b1) runs = run;
      next_cycle;
`ifdef TRACE
      trace_cycle;
`endif
      if (run < runs)
        $fwrite(counters, "%0d %0d %0d %0d %0d %0d %0d\n", cycles, compute_cycles, fill_cycles,
                stall_feed_cycles, drain_cycles, overflow_events, overflow_outputs);
    end
    $fclose(counters);
    ->write_back;
    @(negedge clk);
    $finish;
  end
endmodule

`default_nettype wire

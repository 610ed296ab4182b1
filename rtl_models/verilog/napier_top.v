`default_nettype none

// The accelerator: a host writes one register, and is told when a whole network is done.
//
// AXI4-Lite slave for the host, AXI4 master for descriptors, weights and tensors, one interrupt.
// docs/programming.md tells how to use it. Words of a descriptor are taken from `loading` and
// `running` at [n*32 +: width], n and width being those of section 3 there.
// Synchronous reset at any time; the contents of memories survive it, but are of no meaning.
//
// rules T4, T5, T10 (control), T6 to T9 (dma), all others (engine).
module napier_top #(
    // array
    parameter integer ROWS         = 4,
    parameter integer COLS         = 4,
    parameter integer FEED         = 1,
    parameter integer DEPTH        = 1,
    parameter integer PE_KIND      = 0,   // 0 mac, 1 shift_add, 2 ternary
    parameter integer TERMS        = 1,
    parameter integer CODE_W       = 8,
    parameter integer WEIGHT_W     = 9,
    parameter integer ACC_BITS     = 32,
    parameter integer SATURATE     = 0,
    parameter integer EVENTS_W     = 16,
    parameter integer SPILL        = 0,
    parameter integer WIDE_BITS    = 32,
    // vector unit and post-processor
    parameter integer VECTOR       = 1,   // 0: no vector unit
    parameter integer LANES        = 1,
    parameter integer POST_W       = 32,
    // Winograd unit
    parameter integer WINOGRAD     = 0,   // 0: none, 1: F(2,3), 2: F(4,3), 3: both
    parameter integer CHUNK_WORDS  = 64,  // transformed words of a chunk at most
    // bus
    parameter integer DATA_W       = 64,  // a power of two, 32 to 1024
    parameter integer ADDR_W       = 40,  // 33 to 64
    // memories
    parameter integer FEED_BEATS   = 64,
    parameter integer STREAM_BEATS = 64,  // of a column
    parameter integer PARAM_WORDS  = 64,
    parameter integer ACT_WORDS    = 64,  // of a bank
    parameter integer OUT_WORDS    = 64,  // of a bank
    parameter integer LAYERS       = 64,  // of the counter memory
    // identity of the hardware description
    parameter [31:0]  MACHINE_ID   = 0
) (
    input wire clk,
    input wire rst,

    // host: AXI4-Lite
    input  wire [11:0] s_axi_awaddr,
    input  wire [ 2:0] s_axi_awprot,
    input  wire        s_axi_awvalid,
    output wire        s_axi_awready,
    input  wire [31:0] s_axi_wdata,
    input  wire [ 3:0] s_axi_wstrb,
    input  wire        s_axi_wvalid,
    output wire        s_axi_wready,
    output wire [ 1:0] s_axi_bresp,
    output wire        s_axi_bvalid,
    input  wire        s_axi_bready,
    input  wire [11:0] s_axi_araddr,
    input  wire [ 2:0] s_axi_arprot,
    input  wire        s_axi_arvalid,
    output wire        s_axi_arready,
    output wire [31:0] s_axi_rdata,
    output wire [ 1:0] s_axi_rresp,
    output wire        s_axi_rvalid,
    input  wire        s_axi_rready,
    output wire        irq,

    // external memory: AXI4
    output wire                m_axi_arid,
    output wire [  ADDR_W-1:0] m_axi_araddr,
    output wire [         7:0] m_axi_arlen,
    output wire [         2:0] m_axi_arsize,
    output wire [         1:0] m_axi_arburst,
    output wire                m_axi_arlock,
    output wire [         3:0] m_axi_arcache,
    output wire [         2:0] m_axi_arprot,
    output wire [         3:0] m_axi_arqos,
    output wire                m_axi_arvalid,
    input  wire                m_axi_arready,
    input  wire                m_axi_rid,
    input  wire [  DATA_W-1:0] m_axi_rdata,
    input  wire [         1:0] m_axi_rresp,
    input  wire                m_axi_rlast,
    input  wire                m_axi_rvalid,
    output wire                m_axi_rready,
    output wire                m_axi_awid,
    output wire [  ADDR_W-1:0] m_axi_awaddr,
    output wire [         7:0] m_axi_awlen,
    output wire [         2:0] m_axi_awsize,
    output wire [         1:0] m_axi_awburst,
    output wire                m_axi_awlock,
    output wire [         3:0] m_axi_awcache,
    output wire [         2:0] m_axi_awprot,
    output wire [         3:0] m_axi_awqos,
    output wire                m_axi_awvalid,
    input  wire                m_axi_awready,
    output wire [  DATA_W-1:0] m_axi_wdata,
    output wire [DATA_W/8-1:0] m_axi_wstrb,
    output wire                m_axi_wlast,
    output wire                m_axi_wvalid,
    input  wire                m_axi_wready,
    input  wire                m_axi_bid,
    input  wire [         1:0] m_axi_bresp,
    input  wire                m_axi_bvalid,
    output wire                m_axi_bready
);
  localparam integer SHIFT_W = 4;
  localparam integer ADV_W = 4;
  localparam integer TAP_W = 8;
  localparam integer COORD_W = 20;
  localparam integer TILE_W = 16;
  localparam integer START_W = 16;
  localparam integer CHUNK_W = $clog2(CHUNK_WORDS / 16 + 1);

  // words
  localparam integer WORD_W = FEED * CODE_W;
  localparam integer LANE_W = FEED > 1 ? $clog2(FEED) : 1;
  localparam integer ROT_W = ROWS > 1 ? $clog2(ROWS) : 1;
  localparam integer ENTRY_CODE_W = PE_KIND == 0 ? WEIGHT_W :
                                    PE_KIND == 1 ? TERMS * (2 + SHIFT_W) : 2;
  localparam integer ENTRY_W = 1 + ADV_W + LANE_W + ENTRY_CODE_W;
  localparam integer PARAM_W = POST_W + 40;
  localparam integer PAYLOAD_W = DATA_W - 1;

  // addresses
  localparam integer ACT_ADDR_W = ACT_WORDS > 1 ? $clog2(ACT_WORDS) : 1;
  localparam integer OUT_ADDR_W = OUT_WORDS > 1 ? $clog2(OUT_WORDS) : 1;
  localparam integer PARAM_ADDR_W = PARAM_WORDS > 1 ? $clog2(PARAM_WORDS) : 1;
  localparam integer FEED_WORD_W = 2 + ACT_ADDR_W + ROT_W + 2 * TAP_W;
  localparam integer FEED_PLACES = PAYLOAD_W / FEED_WORD_W;
  localparam integer STREAM_PLACES = PAYLOAD_W / ENTRY_W;
  localparam integer FEED_BEAT_W = FEED_BEATS > 1 ? $clog2(FEED_BEATS) : 1;
  localparam integer STREAM_BEAT_W = STREAM_BEATS > 1 ? $clog2(STREAM_BEATS) : 1;
  localparam integer FEED_ADDR_W =
      FEED_BEATS * FEED_PLACES > 1 ? $clog2(FEED_BEATS) + $clog2(FEED_PLACES) : 1;
  localparam integer STREAM_ADDR_W =
      STREAM_BEATS * STREAM_PLACES > 1 ? $clog2(STREAM_BEATS) + $clog2(STREAM_PLACES) : 1;

  // The engine counts channels in parameter addresses; a pass may have more of the former.
  localparam integer CHANNELS = OUT_WORDS * FEED > PARAM_WORDS ? OUT_WORDS * FEED : PARAM_WORDS;
  localparam integer CHANNEL_W = CHANNELS > 1 ? $clog2(CHANNELS) : 1;
  localparam integer RESULTS_W = $clog2((COLS > FEED ? COLS : FEED) * (ROWS / LANES) + 1);

  // descriptors
  localparam integer WORDS = 64 + ROWS;
  localparam integer DESC_BEATS = 32 * ((WORDS + 31) / 32) / (DATA_W / 32);
  localparam integer DESC_INDEX_W = $clog2(DESC_BEATS);

  // Control
  wire op_start, op_done, dma_abort, dma_idle, clear, engine_start, engine_done;
  wire [2:0] op_kind;
  wire [ADDR_W-1:0] base;
  wire [31:0] descriptor_offset;
  wire error_read, error_write, error_bounds, error_block, endless;
  wire desc_write;
  wire [DESC_INDEX_W-1:0] desc_index;
  wire [DATA_W-1:0] desc_data;
  wire [31:0] run_compute, run_fill, run_stall_feed, run_drain;
  wire [31:0] run_overflow_events, run_overflow_outputs;
  wire [WORDS*32-1:0] loading, running;
  wire unused_words = ^{loading, running};  // not every bit is a field

  control #(
      .ROWS         (ROWS),
      .COLS         (COLS),
      .FEED         (FEED),
      .PE_KIND      (PE_KIND),
      .TERMS        (TERMS),
      .CODE_W       (CODE_W),
      .ACC_BITS     (ACC_BITS),
      .SATURATE     (SATURATE),
      .VECTOR       (VECTOR),
      .WINOGRAD     (WINOGRAD),
      .CHUNK_WORDS  (CHUNK_WORDS),
      .LANES        (LANES),
      .DATA_W       (DATA_W),
      .ADDR_W       (ADDR_W),
      .COORD_W      (COORD_W),
      .FEED_ADDR_W  (FEED_ADDR_W),
      .STREAM_ADDR_W(STREAM_ADDR_W),
      .CHANNEL_W    (CHANNEL_W),
      .ACT_WORDS    (ACT_WORDS),
      .OUT_WORDS    (OUT_WORDS),
      .LAYERS       (LAYERS),
      .MACHINE_ID   (MACHINE_ID)
  ) u_control (
      .clk                 (clk),
      .rst                 (rst),
      .s_axi_awaddr        (s_axi_awaddr),
      .s_axi_awprot        (s_axi_awprot),
      .s_axi_awvalid       (s_axi_awvalid),
      .s_axi_awready       (s_axi_awready),
      .s_axi_wdata         (s_axi_wdata),
      .s_axi_wstrb         (s_axi_wstrb),
      .s_axi_wvalid        (s_axi_wvalid),
      .s_axi_wready        (s_axi_wready),
      .s_axi_bresp         (s_axi_bresp),
      .s_axi_bvalid        (s_axi_bvalid),
      .s_axi_bready        (s_axi_bready),
      .s_axi_araddr        (s_axi_araddr),
      .s_axi_arprot        (s_axi_arprot),
      .s_axi_arvalid       (s_axi_arvalid),
      .s_axi_arready       (s_axi_arready),
      .s_axi_rdata         (s_axi_rdata),
      .s_axi_rresp         (s_axi_rresp),
      .s_axi_rvalid        (s_axi_rvalid),
      .s_axi_rready        (s_axi_rready),
      .irq                 (irq),
      .op_start            (op_start),
      .op_kind             (op_kind),
      .op_done             (op_done),
      .dma_abort           (dma_abort),
      .dma_idle            (dma_idle),
      .base                (base),
      .descriptor_offset   (descriptor_offset),
      .error_read          (error_read),
      .error_write         (error_write),
      .error_bounds        (error_bounds),
      .error_block         (error_block || endless),
      .desc_write          (desc_write),
      .desc_index          (desc_index),
      .desc_data           (desc_data),
      .engine_start        (engine_start),
      .engine_done         (engine_done),
      .run_compute         (run_compute),
      .run_fill            (run_fill),
      .run_stall_feed      (run_stall_feed),
      .run_drain           (run_drain),
      .run_overflow_events (run_overflow_events),
      .run_overflow_outputs(run_overflow_outputs),
      .clear               (clear),
      .loading             (loading),
      .running             (running)
  );

  // Transfers
  wire feed_write, param_write, out_read;
  wire [FEED_BEAT_W-1:0] feed_write_beat;
  wire [COLS-1:0] stream_write;
  wire [STREAM_BEAT_W-1:0] stream_write_beat;
  wire [PAYLOAD_W-1:0] weight_data;
  wire [PARAM_ADDR_W-1:0] param_write_addr;
  wire [PARAM_W-1:0] param_write_data;
  wire [ROWS-1:0] act_write;
  wire [ROWS*ACT_ADDR_W-1:0] act_write_addr;
  wire [ROWS*WORD_W-1:0] act_write_data;
  wire [ROWS*FEED-1:0] act_write_part;
  wire [ROWS*OUT_ADDR_W-1:0] out_read_addr;
  wire [ROWS*WORD_W-1:0] out_read_data;

  dma #(
      .ROWS        (ROWS),
      .COLS        (COLS),
      .FEED        (FEED),
      .CODE_W      (CODE_W),
      .POST_W      (POST_W),
      .DATA_W      (DATA_W),
      .ADDR_W      (ADDR_W),
      .FEED_BEATS  (FEED_BEATS),
      .STREAM_BEATS(STREAM_BEATS),
      .PARAM_WORDS (PARAM_WORDS),
      .ACT_WORDS   (ACT_WORDS),
      .OUT_WORDS   (OUT_WORDS)
  ) u_dma (
      .clk                      (clk),
      .rst                      (rst || clear),
      .op_start                 (op_start),
      .op_kind                  (op_kind),
      .op_done                  (op_done),
      .op_abort                 (dma_abort),
      .idle                     (dma_idle),
      .base                     (base),
      .descriptor_offset        (descriptor_offset),
      .cfg_weight_offset        (loading[33*32+:32]),
      .cfg_weight_beats         (loading[34*32+:32]),
      .cfg_load_feed            (loading[35*32+:32]),
      .cfg_load_parameters      (loading[36*32+:32]),
      .cfg_load_streams         (loading[37*32+:32]),
      .cfg_vector               (loading[2*32+10+:3] != '0),
      .cfg_load_offset          (loading[38*32+:32]),
      .cfg_load_segments        (loading[39*32+:32]),
      .cfg_load_words           (loading[40*32+:32]),
      .cfg_load_stride          (loading[41*32+:32]),
      .cfg_load_base            (loading[42*32+:32]),
      .cfg_load_row_words       (loading[43*32+:32]),
      .cfg_load_rows            (loading[44*32+:32]),
      .cfg_load_stride_x        (loading[45*32+:8]),
      .cfg_load_stride_y        (loading[45*32+8+:8]),
      .cfg_load_bank            (loading[45*32+16+:16]),
      .cfg_load_phase_words     (loading[46*32+:32]),
      .cfg_load_pitch_banks     (loading[47*32+:16]),
      .cfg_load_phase_y         (loading[47*32+16+:16]),
      .cfg_load_pitch_words     (loading[48*32+:32]),
      .cfg_second_load_offset   (loading[49*32+:32]),
      .cfg_second_load_base     (loading[50*32+:32]),
      .cfg_in_words             (loading[12*32+:32]),
      .cfg_store_offset         (running[52*32+:32]),
      .cfg_store_segments       (running[53*32+:32]),
      .cfg_store_words          (running[54*32+:32]),
      .cfg_store_stride         (running[55*32+:32]),
      .cfg_store_base           (running[56*32+:32]),
      .cfg_store_bank           (running[57*32+:16]),
      .cfg_store_first_row_words(running[58*32+:32]),
      .cfg_store_row_words      (running[59*32+:32]),
      .cfg_store_gap_banks      (running[60*32+:16]),
      .cfg_store_gap_words      (running[61*32+:32]),
      .cfg_store_first_lane     (running[62*32+:8]),
      .cfg_store_last_lane      (running[62*32+8+:8]),
      .cfg_out_words            (running[13*32+:32]),
      .cfg_store_form           (running[2*32+13+:2]),
      .desc_write               (desc_write),
      .desc_index               (desc_index),
      .desc_data                (desc_data),
      .feed_write               (feed_write),
      .feed_write_beat          (feed_write_beat),
      .stream_write             (stream_write),
      .stream_write_beat        (stream_write_beat),
      .weight_data              (weight_data),
      .param_write              (param_write),
      .param_write_addr         (param_write_addr),
      .param_write_data         (param_write_data),
      .act_write                (act_write),
      .act_write_addr           (act_write_addr),
      .act_write_data           (act_write_data),
      .act_write_part           (act_write_part),
      .out_read                 (out_read),
      .out_read_addr            (out_read_addr),
      .out_read_data            (out_read_data),
      .error_read               (error_read),
      .error_write              (error_write),
      .error_bounds             (error_bounds),
      .error_block              (error_block),
      .m_axi_araddr             (m_axi_araddr),
      .m_axi_arlen              (m_axi_arlen),
      .m_axi_arsize             (m_axi_arsize),
      .m_axi_arburst            (m_axi_arburst),
      .m_axi_arid               (m_axi_arid),
      .m_axi_arcache            (m_axi_arcache),
      .m_axi_arprot             (m_axi_arprot),
      .m_axi_arlock             (m_axi_arlock),
      .m_axi_arqos              (m_axi_arqos),
      .m_axi_arvalid            (m_axi_arvalid),
      .m_axi_arready            (m_axi_arready),
      .m_axi_rdata              (m_axi_rdata),
      .m_axi_rresp              (m_axi_rresp),
      .m_axi_rlast              (m_axi_rlast),
      .m_axi_rid                (m_axi_rid),
      .m_axi_rvalid             (m_axi_rvalid),
      .m_axi_rready             (m_axi_rready),
      .m_axi_awaddr             (m_axi_awaddr),
      .m_axi_awlen              (m_axi_awlen),
      .m_axi_awsize             (m_axi_awsize),
      .m_axi_awburst            (m_axi_awburst),
      .m_axi_awid               (m_axi_awid),
      .m_axi_awcache            (m_axi_awcache),
      .m_axi_awprot             (m_axi_awprot),
      .m_axi_awlock             (m_axi_awlock),
      .m_axi_awqos              (m_axi_awqos),
      .m_axi_awvalid            (m_axi_awvalid),
      .m_axi_awready            (m_axi_awready),
      .m_axi_wdata              (m_axi_wdata),
      .m_axi_wstrb              (m_axi_wstrb),
      .m_axi_wlast              (m_axi_wlast),
      .m_axi_wvalid             (m_axi_wvalid),
      .m_axi_wready             (m_axi_wready),
      .m_axi_bresp              (m_axi_bresp),
      .m_axi_bid                (m_axi_bid),
      .m_axi_bvalid             (m_axi_bvalid),
      .m_axi_bready             (m_axi_bready)
  );

  // Engine
  wire [ROWS*COORD_W-1:0] start_y, start_x;
  wire feed_read, act_read, param_read;
  wire [FEED_ADDR_W-1:0] feed_addr;
  wire [FEED_WORD_W-1:0] feed_word;
  wire [ROWS*ACT_ADDR_W-1:0] act_addr;
  wire [ROWS*WORD_W-1:0] act_code;
  wire [COLS-1:0] stream_read;
  wire [COLS*STREAM_ADDR_W-1:0] stream_addr;
  wire [COLS*ENTRY_W-1:0] stream_entry;
  wire [CHANNEL_W-1:0] param_addr;
  wire [PARAM_W-1:0] param_word;
  wire [ROWS*FEED-1:0] out_write;
  wire [OUT_ADDR_W-1:0] out_addr;
  wire [LANES*CODE_W-1:0] out_data;
  wire engine_busy;
  wire [31:0] unused_cycles;  // control counts

  layer_engine #(
      .ROWS         (ROWS),
      .COLS         (COLS),
      .FEED         (FEED),
      .DEPTH        (DEPTH),
      .PE_KIND      (PE_KIND),
      .TERMS        (TERMS),
      .CODE_W       (CODE_W),
      .WEIGHT_W     (WEIGHT_W),
      .SHIFT_W      (SHIFT_W),
      .ADV_W        (ADV_W),
      .ACC_BITS     (ACC_BITS),
      .SATURATE     (SATURATE),
      .EVENTS_W     (EVENTS_W),
      .SPILL        (SPILL),
      .WIDE_BITS    (WIDE_BITS),
      .VECTOR       (VECTOR),
      .LANES        (LANES),
      .POST_W       (POST_W),
      .WINOGRAD     (WINOGRAD),
      .CHUNK_WORDS  (CHUNK_WORDS),
      .FEED_PLACES  (FEED_PLACES),
      .STREAM_PLACES(STREAM_PLACES),
      .FEED_ADDR_W  (FEED_ADDR_W),
      .ACT_ADDR_W   (ACT_ADDR_W),
      .STREAM_ADDR_W(STREAM_ADDR_W),
      .PARAM_ADDR_W (CHANNEL_W),
      .OUT_ADDR_W   (OUT_ADDR_W),
      .TAP_W        (TAP_W),
      .COORD_W      (COORD_W),
      .TILE_W       (TILE_W)
  ) u_engine (
      .clk                  (clk),
      .rst                  (rst || clear),
      .start                (engine_start),
      .busy                 (engine_busy),
      .done                 (engine_done),
      .cfg_pixel_tiles      (running[4*32+:TILE_W]),
      .cfg_channel_tiles    (running[4*32+16+:TILE_W]),
      .cfg_results          (RESULTS_W'(running[5*32+:16])),
      .cfg_results_last     (RESULTS_W'(running[5*32+16+:16])),
      .cfg_feed_base        (running[6*32+:FEED_ADDR_W]),
      .cfg_stream_base      (running[7*32+:STREAM_ADDR_W]),
      .cfg_first_channel    (running[8*32+:CHANNEL_W]),
      .cfg_parameter_base   (running[9*32+:CHANNEL_W]),
      .cfg_activation_base  (running[10*32+:ACT_ADDR_W]),
      .cfg_output_base      (running[11*32+:OUT_ADDR_W]),
      .cfg_in_words         (running[12*32+:ACT_ADDR_W]),
      .cfg_out_words        (running[13*32+:OUT_ADDR_W]),
      .cfg_start_y          (start_y),
      .cfg_start_x          (start_x),
      .cfg_step_y           (running[14*32+:COORD_W]),
      .cfg_step_x           (running[15*32+:COORD_W]),
      .cfg_row_y            (running[16*32+:COORD_W]),
      .cfg_wrap_x           (running[17*32+:COORD_W]),
      .cfg_pitch_x          (running[18*32+:COORD_W]),
      .cfg_end_y            (running[19*32+:COORD_W]),
      .cfg_end_x            (running[20*32+:COORD_W]),
      .cfg_height           (running[21*32+:COORD_W]),
      .cfg_width            (running[22*32+:COORD_W]),
      .cfg_input_signed     (running[2*32+5]),
      .cfg_input_zero_point (running[23*32+:CODE_W+1]),
      .cfg_output_zero_point(running[24*32+:CODE_W+1]),
      .cfg_rounding         (running[2*32+7+:3]),
      .cfg_minimum          (running[25*32+:CODE_W+1]),
      .cfg_maximum          (running[26*32+:CODE_W+1]),
      .cfg_drain            (running[2*32+4]),
      .cfg_mode             (running[2*32+10+:3]),
      .cfg_shared_parameter (running[2*32+6]),
      .cfg_second_offset    (running[27*32+:CODE_W+2]),
      .cfg_left_shift       (running[28*32+:5]),
      .cfg_first_multiplier (running[29*32+:32]),
      .cfg_first_shift      (running[30*32+:8]),
      .cfg_second_multiplier(running[31*32+:32]),
      .cfg_second_shift     (running[32*32+:8]),
      .cfg_winograd         (running[2*32+13+:2]),
      .cfg_chunk_words      (running[63*32+:CHUNK_W]),
      .cfg_chunks           (running[63*32+16+:TILE_W]),
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
      .cycles               (unused_cycles),
      .compute_cycles       (run_compute),
      .fill_cycles          (run_fill),
      .stall_feed_cycles    (run_stall_feed),
      .drain_cycles         (run_drain),
      .overflow_events      (run_overflow_events),
      .overflow_outputs     (run_overflow_outputs)
  );

  // A run that never ends: feed words or entries lack their `last` bits. A tile's result is read
  // after at most one cycle for each entry of its columns (or each of its words, in the vector
  // unit) and for each result of the tile before; 4 times the largest of these is out of the question.
  // A Winograd tile waits for its results in each of its parts, of which it has no more than entries.
  localparam integer ENTRIES_W = STREAM_ADDR_W + $clog2(COLS);
  localparam integer WORDS_W = FEED_ADDR_W > RESULTS_W ? FEED_ADDR_W : RESULTS_W;
  localparam integer PATIENCE_W = 2 + (ENTRIES_W > WORDS_W ? ENTRIES_W : WORDS_W) +
      (WINOGRAD != 0 ? RESULTS_W : 0);
  logic [PATIENCE_W:0] waited_q;  // cycles of a run since its last result

  assign endless = waited_q[PATIENCE_W];

  always_ff @(posedge clk) begin
    if (rst || clear || !engine_busy || param_read) waited_q <= '0;
    else if (!endless) waited_q <= waited_q + 1'b1;
  end

  // Memories
  beat_memory #(
      .PAYLOAD_W(PAYLOAD_W),
      .WIDTH    (FEED_WORD_W),
      .BEATS    (FEED_BEATS)
  ) u_feed_memory (
      .clk       (clk),
      .write     (feed_write),
      .write_beat(feed_write_beat),
      .write_data(weight_data),
      .read      (feed_read),
      .read_addr (feed_addr),
      .word      (feed_word)
  );

  wire unused_param_addr = ^param_addr;  // modulo the memory's addresses

  bank_memory #(
      .WORDS (PARAM_WORDS),
      .LANES (1),
      .LANE_W(PARAM_W)
  ) u_parameter_memory (
      .clk        (clk),
      .write      (param_write),
      .write_lanes(1'b1),
      .write_addr (param_write_addr),
      .write_data (param_write_data),
      .read       (param_read),
      .read_addr  (param_addr[PARAM_ADDR_W-1:0]),
      .word       (param_word)
  );

  genvar row, col;
  generate
    for (col = 0; col < COLS; col = col + 1) begin : g_col
      beat_memory #(
          .PAYLOAD_W(PAYLOAD_W),
          .WIDTH    (ENTRY_W),
          .BEATS    (STREAM_BEATS)
      ) u_stream_memory (
          .clk       (clk),
          .write     (stream_write[col]),
          .write_beat(stream_write_beat),
          .write_data(weight_data),
          .read      (stream_read[col]),
          .read_addr (stream_addr[col*STREAM_ADDR_W+:STREAM_ADDR_W]),
          .word      (stream_entry[col*ENTRY_W+:ENTRY_W])
      );
    end

    for (row = 0; row < ROWS; row = row + 1) begin : g_row
      localparam integer START = (64 + row) * 32;
      assign start_y[row*COORD_W+:COORD_W] = COORD_W'($signed(running[START+:START_W]));
      assign start_x[row*COORD_W+:COORD_W] = COORD_W'($signed(running[START+16+:START_W]));

      bank_memory #(
          .WORDS (ACT_WORDS),
          .LANES (FEED),
          .LANE_W(CODE_W)
      ) u_activation_bank (
          .clk        (clk),
          .write      (act_write[row]),
          .write_lanes(act_write_part[row*FEED+:FEED]),
          .write_addr (act_write_addr[row*ACT_ADDR_W+:ACT_ADDR_W]),
          .write_data (act_write_data[row*WORD_W+:WORD_W]),
          .read       (act_read),
          .read_addr  (act_addr[row*ACT_ADDR_W+:ACT_ADDR_W]),
          .word       (act_code[row*WORD_W+:WORD_W])
      );

      bank_memory #(
          .WORDS (OUT_WORDS),
          .LANES (FEED),
          .LANE_W(CODE_W)
      ) u_output_bank (
          .clk        (clk),
          .write      (out_write[row*FEED+:FEED] != '0),
          .write_lanes(out_write[row*FEED+:FEED]),
          .write_addr (out_addr),
          .write_data ({FEED{out_data[row%LANES*CODE_W+:CODE_W]}}),
          .read       (out_read),
          .read_addr  (out_read_addr[row*OUT_ADDR_W+:OUT_ADDR_W]),
          .word       (out_read_data[row*WORD_W+:WORD_W])
      );
    end
  endgenerate
endmodule

`default_nettype wire

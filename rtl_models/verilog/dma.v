`default_nettype none

// Moves descriptors, weight blocks, activations and outputs between external memory and the
// accelerator's memories, one operation at a time.
//
// An operation begins with `op_start` in cycle s and ends with `op_done` in cycle e; both and every
// transfer between them are those of rules T6 to T9. The next one may start in cycle e + 1. Only
// operations with something to do may be started. The cfg_* stay for the time of a load; those of a
// store are sampled at op_start, since its pass's configuration is gone before the store ends.
//
// `op_abort` lets no more bursts start and accepts what is outstanding; keep it up until `idle`. An
// aborted operation gives no op_done. Reset ends everything at once (the bus is reset with it).
//
//   port             meaning
//   op_kind          0 descriptor, 1 weights, 2 activations, 3 second operand, 4 store
//   idle             no operation runs and nothing is outstanding
//   base             external byte address that all offsets count from, a multiple of 4096
//   cfg_vector       a weight block has no streams
//   desc_*           beat desc_index of the descriptor
//   weight_data      payload of a beat for the feed memory or the stream memory of a column
//   act_*            bank b: enable, its lanes [b*FEED+:FEED], address, word
//   out_*            bank b's address; its word comes one cycle after out_read and holds
//   error_read, error_write
//                    a read, a write of this operation was answered with an error
//   error_bounds, error_block
//                    this operation went beyond a memory; a weight block's sections are wrong
//                    All errors stay from the cycle in which they are found to the next op_start;
//                    the operation goes on.
//
// model: simulator.transfers; rules T6 to T9 and docs/programming.md, sections 1 to 3.
module dma #(
    parameter integer ROWS          = 4,
    parameter integer COLS          = 4,
    parameter integer FEED          = 1,
    parameter integer CODE_W        = 8,
    parameter integer POST_W        = 32,
    // bus
    parameter integer DATA_W        = 64,
    parameter integer ADDR_W        = 40,
    // memories
    parameter integer FEED_BEATS    = 64,
    parameter integer STREAM_BEATS  = 64,
    parameter integer PARAM_WORDS   = 64,
    parameter integer ACT_WORDS     = 1024,
    parameter integer OUT_WORDS     = 1024,
    // derived
    parameter integer FEED_BEAT_W   = FEED_BEATS > 1 ? $clog2(FEED_BEATS) : 1,
    parameter integer STREAM_BEAT_W = STREAM_BEATS > 1 ? $clog2(STREAM_BEATS) : 1,
    parameter integer PARAM_ADDR_W  = PARAM_WORDS > 1 ? $clog2(PARAM_WORDS) : 1,
    parameter integer ACT_ADDR_W    = ACT_WORDS > 1 ? $clog2(ACT_WORDS) : 1,
    parameter integer OUT_ADDR_W    = OUT_WORDS > 1 ? $clog2(OUT_WORDS) : 1,
    parameter integer PARAM_W       = POST_W + 40,
    parameter integer WORD_W        = FEED * CODE_W,
    parameter integer DESC_BYTES    = (4 * (64 + ROWS) + 127) / 128 * 128,
    parameter integer DESC_INDEX_W  = DESC_BYTES > DATA_W / 8 ? $clog2(DESC_BYTES * 8 / DATA_W) : 1
) (
    input wire clk,
    input wire rst,

    // control
    input  wire       op_start,
    input  wire [2:0] op_kind,
    output wire       op_done,
    input  wire       op_abort,
    output wire       idle,

    // configuration: where things are
    input wire [ADDR_W-1:0] base,
    input wire [      31:0] descriptor_offset,

    // configuration: weights
    input wire [31:0] cfg_weight_offset,
    input wire [31:0] cfg_weight_beats,
    input wire [31:0] cfg_load_feed,
    input wire [31:0] cfg_load_parameters,
    input wire [31:0] cfg_load_streams,
    input wire        cfg_vector,

    // configuration: activations
    input wire [31:0] cfg_load_offset,
    input wire [31:0] cfg_load_segments,
    input wire [31:0] cfg_load_words,
    input wire [31:0] cfg_load_stride,
    input wire [31:0] cfg_load_base,
    input wire [31:0] cfg_load_row_words,
    input wire [31:0] cfg_load_rows,
    input wire [ 7:0] cfg_load_stride_x,
    input wire [ 7:0] cfg_load_stride_y,
    input wire [15:0] cfg_load_bank,
    input wire [31:0] cfg_load_phase_words,
    input wire [15:0] cfg_load_pitch_banks,
    input wire [15:0] cfg_load_phase_y,
    input wire [31:0] cfg_load_pitch_words,
    input wire [31:0] cfg_second_load_offset,
    input wire [31:0] cfg_second_load_base,
    input wire [31:0] cfg_in_words,

    // configuration: store
    input wire [31:0] cfg_store_offset,
    input wire [31:0] cfg_store_segments,
    input wire [31:0] cfg_store_words,
    input wire [31:0] cfg_store_stride,
    input wire [31:0] cfg_store_base,
    input wire [15:0] cfg_store_bank,
    input wire [31:0] cfg_store_first_row_words,
    input wire [31:0] cfg_store_row_words,
    input wire [15:0] cfg_store_gap_banks,
    input wire [31:0] cfg_store_gap_words,
    input wire [ 7:0] cfg_store_first_lane,
    input wire [ 7:0] cfg_store_last_lane,
    input wire [31:0] cfg_out_words,
    input wire [ 1:0] cfg_store_form,

    // descriptor
    output wire                    desc_write,
    output wire [DESC_INDEX_W-1:0] desc_index,
    output wire [      DATA_W-1:0] desc_data,

    // weight memories
    output wire                     feed_write,
    output wire [  FEED_BEAT_W-1:0] feed_write_beat,
    output wire [         COLS-1:0] stream_write,
    output wire [STREAM_BEAT_W-1:0] stream_write_beat,
    output wire [       DATA_W-2:0] weight_data,
    output wire                     param_write,
    output wire [ PARAM_ADDR_W-1:0] param_write_addr,
    output wire [      PARAM_W-1:0] param_write_data,

    // activation banks
    output wire [           ROWS-1:0] act_write,
    output wire [ROWS*ACT_ADDR_W-1:0] act_write_addr,
    output wire [    ROWS*WORD_W-1:0] act_write_data,
    output wire [      ROWS*FEED-1:0] act_write_part,

    // output banks
    output wire                       out_read,
    output wire [ROWS*OUT_ADDR_W-1:0] out_read_addr,
    input  wire [    ROWS*WORD_W-1:0] out_read_data,

    // errors
    output wire error_read,
    output wire error_write,
    output wire error_bounds,
    output wire error_block,

    // AXI4 read address
    output wire [ADDR_W-1:0] m_axi_araddr,
    output wire [       7:0] m_axi_arlen,
    output wire [       2:0] m_axi_arsize,
    output wire [       1:0] m_axi_arburst,
    output wire              m_axi_arid,
    output wire [       3:0] m_axi_arcache,
    output wire [       2:0] m_axi_arprot,
    output wire              m_axi_arlock,
    output wire [       3:0] m_axi_arqos,
    output wire              m_axi_arvalid,
    input  wire              m_axi_arready,

    // AXI4 read data
    input  wire [DATA_W-1:0] m_axi_rdata,
    input  wire [       1:0] m_axi_rresp,
    input  wire              m_axi_rlast,
    input  wire              m_axi_rid,
    input  wire              m_axi_rvalid,
    output wire              m_axi_rready,

    // AXI4 write address
    output wire [ADDR_W-1:0] m_axi_awaddr,
    output wire [       7:0] m_axi_awlen,
    output wire [       2:0] m_axi_awsize,
    output wire [       1:0] m_axi_awburst,
    output wire              m_axi_awid,
    output wire [       3:0] m_axi_awcache,
    output wire [       2:0] m_axi_awprot,
    output wire              m_axi_awlock,
    output wire [       3:0] m_axi_awqos,
    output wire              m_axi_awvalid,
    input  wire              m_axi_awready,

    // AXI4 write data
    output wire [  DATA_W-1:0] m_axi_wdata,
    output wire [DATA_W/8-1:0] m_axi_wstrb,
    output wire                m_axi_wlast,
    output wire                m_axi_wvalid,
    input  wire                m_axi_wready,

    // AXI4 write response
    input  wire [1:0] m_axi_bresp,
    input  wire       m_axi_bid,
    input  wire       m_axi_bvalid,
    output wire       m_axi_bready
);
  localparam [2:0] DESCRIPTOR = 3'd0;
  localparam [2:0] WEIGHTS = 3'd1;
  localparam [2:0] SECOND = 3'd3;
  localparam [2:0] STORE = 3'd4;
  localparam integer BEAT_BITS = $clog2(DATA_W / 8);
  localparam integer BYTE_BITS = $clog2(WORD_W / 8);
  localparam integer BYTES_W = 32 + (BYTE_BITS > BEAT_BITS ? BYTE_BITS : BEAT_BITS);
  localparam [2:0] SIZE = 3'(BEAT_BITS);
  localparam [1:0] INCREMENTING = 2'b01;
  localparam [3:0] NORMAL_MEMORY = 4'b0011;

  initial begin
    if (DATA_W < 32 || (DATA_W & (DATA_W - 1)) != 0)
      $fatal(1, "DATA_W=%0d must be a power of two, 32 or more", DATA_W);
    if ((FEED & (FEED - 1)) != 0) $fatal(1, "FEED=%0d must be a power of two", FEED);
    if (CODE_W != 8 && CODE_W != 16) $fatal(1, "CODE_W=%0d must be 8 or 16", CODE_W);
  end

  // The operation
  logic busy_q;
  logic [2:0] kind_q;
  wire finished, drained;
  wire storing = kind_q == STORE;

  assign op_done = finished && !op_abort;
  assign idle    = !busy_q;

  always_ff @(posedge clk) begin
    if (rst) begin
      busy_q <= 1'b0;
    end else begin
      if (op_start) busy_q <= 1'b1;
      else if (finished || op_abort && drained) busy_q <= 1'b0;
    end
    if (op_start) kind_q <= op_kind;
  end

  // Its runs
  logic [31:0] start_offset, start_stride, start_runs;
  logic [BYTES_W-1:0] start_bytes;
  wire [ADDR_W-1:0] start_addr = base + ADDR_W'(start_offset);

  always_comb begin
    start_offset = op_kind == SECOND ? cfg_second_load_offset : cfg_load_offset;
    start_bytes  = BYTES_W'(cfg_load_words) << BYTE_BITS;
    start_stride = cfg_load_stride;
    start_runs   = cfg_load_segments;
    if (op_kind == DESCRIPTOR) begin
      start_offset = descriptor_offset;
      start_bytes  = BYTES_W'(DESC_BYTES);
      start_runs   = 32'd1;
    end else if (op_kind == WEIGHTS) begin
      start_offset = cfg_weight_offset;
      start_bytes  = BYTES_W'(cfg_weight_beats) << BEAT_BITS;
      start_runs   = 32'd1;
    end else if (op_kind == STORE) begin
      start_offset = cfg_store_offset;
      start_bytes  = BYTES_W'(cfg_store_words) << BYTE_BITS;
      start_stride = cfg_store_stride;
      start_runs   = cfg_store_segments;
    end
  end

  // Bursts
  wire burst_valid, burst_ready, burst_offered, burst_end;
  wire write_end, write_failed;
  wire read_end = m_axi_rvalid && m_axi_rready && m_axi_rlast;
  wire [ADDR_W-1:0] burst_addr;
  wire [7:0] burst_beats_less_1;
  wire bursts_active;
  wire [3:0] outstanding;

  assign burst_ready = storing ? m_axi_awready : m_axi_arready;
  assign burst_end   = read_end || write_end;

  burst_generator #(
      .ADDR_W (ADDR_W),
      .DATA_W (DATA_W),
      .BYTES_W(BYTES_W)
  ) u_bursts (
      .clk         (clk),
      .rst         (rst),
      .op_abort    (op_abort),
      .start       (op_start),
      .start_addr  (start_addr),
      .start_bytes (start_bytes),
      .start_stride(start_stride),
      .start_runs  (start_runs),
      .valid       (burst_valid),
      .ready       (burst_ready),
      .addr        (burst_addr),
      .beats_less_1(burst_beats_less_1),
      .offered     (burst_offered),
      .burst_end   (burst_end),
      .active      (bursts_active),
      .outstanding (outstanding)
  );

  assign {m_axi_arvalid, m_axi_awvalid} = {burst_valid && !storing, burst_valid && storing};
  assign {m_axi_araddr, m_axi_awaddr}   = {2{burst_addr}};
  assign {m_axi_arlen, m_axi_awlen}     = {2{burst_beats_less_1}};
  assign {m_axi_arsize, m_axi_awsize}   = {2{SIZE}};
  assign {m_axi_arburst, m_axi_awburst} = {2{INCREMENTING}};
  assign {m_axi_arid, m_axi_awid}       = '0;
  assign {m_axi_arcache, m_axi_awcache} = {2{NORMAL_MEMORY}};
  assign {m_axi_arprot, m_axi_awprot}   = '0;
  assign {m_axi_arlock, m_axi_awlock}   = '0;
  assign {m_axi_arqos, m_axi_awqos}     = '0;

  // The beat that was read; it stays for as many cycles as it has pieces (rule T7).
  logic beat_valid_q;
  logic [DATA_W-1:0] beat_q;
  wire pieces_done;
  wire in_pieces = kind_q != DESCRIPTOR && kind_q != WEIGHTS;
  wire beat_done = pieces_done || !in_pieces;
  wire beat_taken = m_axi_rvalid && m_axi_rready;
  wire weights_valid = beat_valid_q && kind_q == WEIGHTS;
  wire unused_answer = &{m_axi_rresp[0], m_axi_rid, m_axi_bid};

  assign m_axi_rready = !beat_valid_q || beat_done;

  always_ff @(posedge clk) begin
    if (rst) beat_valid_q <= 1'b0;
    else if (m_axi_rready) beat_valid_q <= beat_taken;
    if (beat_taken) beat_q <= m_axi_rdata;
  end

  // The end
  wire read_finished = beat_valid_q && beat_done && outstanding == '0;
  wire write_finished = write_end && outstanding == 4'd1;
  assign finished = busy_q && !bursts_active && (storing ? write_finished : read_finished);
  assign drained  = !bursts_active && outstanding == '0 && !beat_valid_q;

  // Descriptor
  logic [DESC_INDEX_W-1:0] desc_index_q;
  assign desc_write = beat_valid_q && kind_q == DESCRIPTOR;
  assign desc_index = desc_index_q;
  assign desc_data  = beat_q;

  always_ff @(posedge clk) begin
    if (op_start) desc_index_q <= '0;
    else if (desc_write) desc_index_q <= desc_index_q + 1'b1;
  end

  // Weights
  wire weights_out_of_bounds, wrong_block;
  assign weight_data = beat_q[DATA_W-2:0];

  weight_unpacker #(
      .COLS        (COLS),
      .DATA_W      (DATA_W),
      .PARAM_W     (PARAM_W),
      .FEED_BEATS  (FEED_BEATS),
      .STREAM_BEATS(STREAM_BEATS),
      .PARAM_WORDS (PARAM_WORDS)
  ) u_weights (
      .clk                (clk),
      .cfg_load_feed      (cfg_load_feed),
      .cfg_load_parameters(cfg_load_parameters),
      .cfg_load_streams   (cfg_load_streams),
      .cfg_vector         (cfg_vector),
      .start              (op_start),
      .beat_valid         (weights_valid),
      .beat               (beat_q),
      .block_end          (finished),
      .feed_write         (feed_write),
      .feed_write_beat    (feed_write_beat),
      .stream_write       (stream_write),
      .stream_write_beat  (stream_write_beat),
      .param_write        (param_write),
      .param_write_addr   (param_write_addr),
      .param_write_data   (param_write_data),
      .bounds_error       (weights_out_of_bounds),
      .block_error        (wrong_block)
  );

  // Activations
  wire load_out_of_bounds;

  activation_unpacker #(
      .ROWS     (ROWS),
      .FEED     (FEED),
      .CODE_W   (CODE_W),
      .DATA_W   (DATA_W),
      .ACT_WORDS(ACT_WORDS)
  ) u_activations (
      .clk                 (clk),
      .cfg_load_words      (cfg_load_words),
      .cfg_load_stride     (cfg_load_stride),
      .cfg_load_row_words  (cfg_load_row_words),
      .cfg_load_rows       (cfg_load_rows),
      .cfg_load_stride_x   (cfg_load_stride_x),
      .cfg_load_stride_y   (cfg_load_stride_y),
      .cfg_load_bank       (cfg_load_bank),
      .cfg_load_phase_words(cfg_load_phase_words),
      .cfg_load_pitch_banks(cfg_load_pitch_banks),
      .cfg_load_phase_y    (cfg_load_phase_y),
      .cfg_load_pitch_words(cfg_load_pitch_words),
      .cfg_in_words        (cfg_in_words),
      .start               (op_start),
      .start_byte          (start_addr[31:0]),
      .start_base          (op_kind == SECOND ? cfg_second_load_base : cfg_load_base),
      .beat_valid          (beat_valid_q && in_pieces),
      .beat                (beat_q),
      .beat_done           (pieces_done),
      .act_write           (act_write),
      .act_write_part      (act_write_part),
      .act_write_addr      (act_write_addr),
      .act_write_data      (act_write_data),
      .bounds_error        (load_out_of_bounds)
  );

  // Outputs
  wire write_valid, write_taken, store_out_of_bounds;
  wire [DATA_W-1:0] write_beat;
  wire [DATA_W/8-1:0] write_strobes;
  wire forget = rst || op_abort && drained;  // what an aborted store has read ahead

  output_packer #(
      .ROWS     (ROWS),
      .FEED     (FEED),
      .CODE_W   (CODE_W),
      .DATA_W   (DATA_W),
      .OUT_WORDS(OUT_WORDS)
  ) u_outputs (
      .clk                  (clk),
      .rst                  (forget),
      .start                (op_start && op_kind == STORE),
      .start_byte           (start_addr[31:0]),
      .start_runs           (cfg_store_segments),
      .start_words          (cfg_store_words),
      .start_stride         (cfg_store_stride),
      .start_base           (cfg_store_base),
      .start_bank           (cfg_store_bank),
      .start_first_row_words(cfg_store_first_row_words),
      .start_row_words      (cfg_store_row_words),
      .start_gap_banks      (cfg_store_gap_banks),
      .start_gap_words      (cfg_store_gap_words),
      .start_first_lane     (cfg_store_first_lane),
      .start_last_lane      (cfg_store_last_lane),
      .start_out_words      (cfg_out_words),
      .start_form           (cfg_store_form),
      .out_read             (out_read),
      .out_read_addr        (out_read_addr),
      .out_read_data        (out_read_data),
      .beat_valid           (write_valid),
      .beat_taken           (write_taken),
      .beat                 (write_beat),
      .beat_strobes         (write_strobes),
      .bounds_error         (store_out_of_bounds)
  );

  axi_writer #(
      .DATA_W(DATA_W)
  ) u_writer (
      .clk               (clk),
      .rst               (rst),
      .burst             (burst_offered && storing),
      .burst_beats_less_1(burst_beats_less_1),
      .beat_valid        (write_valid),
      .beat_taken        (write_taken),
      .beat              (write_beat),
      .beat_strobes      (write_strobes),
      .burst_end         (write_end),
      .failed            (write_failed),
      .m_axi_wdata       (m_axi_wdata),
      .m_axi_wstrb       (m_axi_wstrb),
      .m_axi_wlast       (m_axi_wlast),
      .m_axi_wvalid      (m_axi_wvalid),
      .m_axi_wready      (m_axi_wready),
      .m_axi_bresp       (m_axi_bresp),
      .m_axi_bvalid      (m_axi_bvalid),
      .m_axi_bready      (m_axi_bready)
  );

  // Errors: write, read, bounds, block
  logic [3:0] errors_q;
  wire read_failed = beat_taken && m_axi_rresp[1];
  wire out_of_bounds = weights_out_of_bounds || load_out_of_bounds || store_out_of_bounds;
  wire [3:0] errors = errors_q | {write_failed, read_failed, out_of_bounds, wrong_block};
  assign {error_write, error_read, error_bounds, error_block} = errors;

  always_ff @(posedge clk) begin
    if (rst || op_start) errors_q <= '0;
    else errors_q <= errors;
  end
endmodule

`default_nettype wire

`default_nettype none

// The DMA with its memories and an AXI memory, driven by files in the working folder.
//
// operations.hex   FIELDS words an operation, +operations=N of them: the cycles to wait before it,
//                  its kind, in which of its cycles to abort and to reset (all ones: never), whether
//                  to abort on an error, the base address (two words), then the cfg_* in the order
//                  of the DMA's ports
// output_<b>.hex   output banks
// and writes
// events.txt       what happened in which cycle, see `always` below
// feed.txt, parameters.txt, stream_<c>.txt, activation_<b>.txt, memory.txt
//                  memories at the end
//
// A store's configuration is taken away in the cycle after its start, every other field than those of
// the operation at hand is unknown. `+patience=N` is how many cycles an operation may take.
module dma_bench #(
    parameter integer ROWS         = 4,
    parameter integer COLS         = 3,
    parameter integer FEED         = 4,
    parameter integer CODE_W       = 8,
    parameter integer POST_W       = 32,
    parameter integer DATA_W       = 64,
    parameter integer FEED_BEATS   = 60,
    parameter integer STREAM_BEATS = 50,
    parameter integer PARAM_WORDS  = 40,
    parameter integer ACT_WORDS    = 500,
    parameter integer OUT_WORDS    = 500,
    parameter integer FIELD_W      = 9,     // of feed words and entries
    parameter integer BYTES        = 65536
);
  localparam integer ADDR_W = 40;
  localparam [ADDR_W-1:0] ORIGIN = 40'h12_FFFF_8000;  // a carry into the high word on the way
  localparam integer FIELDS = 44;
  localparam integer WORD_W = FEED * CODE_W;
  localparam integer PARAM_W = POST_W + 40;
  localparam integer ACT_ADDR_W = $clog2(ACT_WORDS);
  localparam integer OUT_ADDR_W = $clog2(OUT_WORDS);
  localparam integer FEED_BEAT_W = $clog2(FEED_BEATS);
  localparam integer STREAM_BEAT_W = $clog2(STREAM_BEATS);
  localparam integer PARAM_ADDR_W = $clog2(PARAM_WORDS);
  localparam integer FEED_ADDR_W = FEED_BEAT_W + $clog2((DATA_W - 1) / FIELD_W);
  localparam integer STREAM_ADDR_W = STREAM_BEAT_W + $clog2((DATA_W - 1) / FIELD_W);
  localparam [31:0] NEVER = '1;
  localparam [2:0] STORE = 3'd4;

  reg clk = 1'b0;
  reg rst = 1'b1;
  always #5 clk = !clk;

  reg [31:0] operations[0:FIELDS*4096-1];
  reg [32*FIELDS-1:0] fields;
  reg op_start = 1'b0, op_abort = 1'b0;
  reg [2:0] op_kind;
  wire op_done, idle, error_read, error_write, error_bounds, error_block;
  wire [3:0] errors = {error_write, error_read, error_bounds, error_block};

  // Field i of the operation
  wire [31:0] cfg[0:FIELDS-1];
  genvar i;
  generate
    for (i = 0; i < FIELDS; i = i + 1) begin : g_field
      assign cfg[i] = fields[32*i+:32];
    end
  endgenerate

  wire desc_write, feed_write, param_write, out_read;
  wire [$clog2((4*(64+ROWS)+127)/128*128*8/DATA_W)-1:0] desc_index;
  wire [DATA_W-1:0] desc_data;
  wire [FEED_BEAT_W-1:0] feed_write_beat;
  wire [COLS-1:0] stream_write;
  wire [STREAM_BEAT_W-1:0] stream_write_beat;
  wire [DATA_W-2:0] weight_data;
  wire [PARAM_ADDR_W-1:0] param_write_addr;
  wire [PARAM_W-1:0] param_write_data;
  wire [ROWS-1:0] act_write;
  wire [ROWS*ACT_ADDR_W-1:0] act_write_addr;
  wire [ROWS*WORD_W-1:0] act_write_data;
  wire [ROWS*FEED-1:0] act_write_part;
  wire [ROWS*OUT_ADDR_W-1:0] out_read_addr;
  wire [ROWS*WORD_W-1:0] out_read_data;

  wire [ADDR_W-1:0] araddr, awaddr;
  wire [7:0] arlen, awlen;
  wire [2:0] arsize, awsize, arprot, awprot;
  wire [1:0] arburst, awburst, rresp, bresp;
  wire [3:0] arcache, awcache, arqos, awqos;
  wire arid, awid, rid, bid, arlock, awlock;
  wire arvalid, arready, rvalid, rready, rlast, awvalid, awready;
  wire wvalid, wready, wlast, bvalid, bready;
  wire [DATA_W-1:0] rdata, wdata;
  wire [DATA_W/8-1:0] wstrb;

  dma #(
      .ROWS(ROWS), .COLS(COLS), .FEED(FEED), .CODE_W(CODE_W), .POST_W(POST_W), .DATA_W(DATA_W),
      .ADDR_W(ADDR_W), .FEED_BEATS(FEED_BEATS), .STREAM_BEATS(STREAM_BEATS),
      .PARAM_WORDS(PARAM_WORDS), .ACT_WORDS(ACT_WORDS), .OUT_WORDS(OUT_WORDS)
  ) dut (
      .clk(clk), .rst(rst), .op_start(op_start), .op_kind(op_kind), .op_done(op_done),
      .op_abort(op_abort), .idle(idle), .base({cfg[6][7:0], cfg[5]}),
      .descriptor_offset(cfg[7]), .cfg_weight_offset(cfg[8]), .cfg_weight_beats(cfg[9]),
      .cfg_load_feed(cfg[10]), .cfg_load_parameters(cfg[11]), .cfg_load_streams(cfg[12]),
      .cfg_vector(cfg[13][0]), .cfg_load_offset(cfg[14]), .cfg_load_segments(cfg[15]),
      .cfg_load_words(cfg[16]), .cfg_load_stride(cfg[17]), .cfg_load_base(cfg[18]),
      .cfg_load_row_words(cfg[19]), .cfg_load_rows(cfg[20]), .cfg_load_stride_x(cfg[21][7:0]),
      .cfg_load_stride_y(cfg[22][7:0]), .cfg_load_bank(cfg[23][15:0]),
      .cfg_load_phase_words(cfg[24]), .cfg_load_pitch_banks(cfg[25][15:0]),
      .cfg_load_phase_y(cfg[26][15:0]), .cfg_load_pitch_words(cfg[27]),
      .cfg_second_load_offset(cfg[28]), .cfg_second_load_base(cfg[29]), .cfg_in_words(cfg[30]),
      .cfg_store_offset(cfg[31]), .cfg_store_segments(cfg[32]), .cfg_store_words(cfg[33]),
      .cfg_store_stride(cfg[34]), .cfg_store_base(cfg[35]), .cfg_store_bank(cfg[36][15:0]),
      .cfg_store_first_row_words(cfg[37]), .cfg_store_row_words(cfg[38]),
      .cfg_store_gap_banks(cfg[39][15:0]), .cfg_store_gap_words(cfg[40]),
      .cfg_store_first_lane(cfg[41][7:0]), .cfg_store_last_lane(cfg[42][7:0]),
      .cfg_out_words(cfg[43]), .cfg_store_form(2'd0), .desc_write(desc_write), .desc_index(desc_index),
      .desc_data(desc_data), .feed_write(feed_write), .feed_write_beat(feed_write_beat),
      .stream_write(stream_write), .stream_write_beat(stream_write_beat),
      .weight_data(weight_data), .param_write(param_write), .param_write_addr(param_write_addr),
      .param_write_data(param_write_data), .act_write(act_write), .act_write_addr(act_write_addr),
      .act_write_data(act_write_data), .act_write_part(act_write_part), .out_read(out_read),
      .out_read_addr(out_read_addr), .out_read_data(out_read_data), .error_read(error_read),
      .error_write(error_write), .error_bounds(error_bounds), .error_block(error_block),
      .m_axi_araddr(araddr), .m_axi_arlen(arlen), .m_axi_arsize(arsize), .m_axi_arburst(arburst),
      .m_axi_arid(arid), .m_axi_arcache(arcache), .m_axi_arprot(arprot), .m_axi_arlock(arlock),
      .m_axi_arqos(arqos), .m_axi_arvalid(arvalid), .m_axi_arready(arready),
      .m_axi_rdata(rdata), .m_axi_rresp(rresp), .m_axi_rlast(rlast), .m_axi_rid(rid),
      .m_axi_rvalid(rvalid), .m_axi_rready(rready),
      .m_axi_awaddr(awaddr), .m_axi_awlen(awlen), .m_axi_awsize(awsize), .m_axi_awburst(awburst),
      .m_axi_awid(awid), .m_axi_awcache(awcache), .m_axi_awprot(awprot), .m_axi_awlock(awlock),
      .m_axi_awqos(awqos), .m_axi_awvalid(awvalid), .m_axi_awready(awready),
      .m_axi_wdata(wdata), .m_axi_wstrb(wstrb), .m_axi_wlast(wlast), .m_axi_wvalid(wvalid),
      .m_axi_wready(wready), .m_axi_bresp(bresp), .m_axi_bid(bid), .m_axi_bvalid(bvalid),
      .m_axi_bready(bready)
  );

  axi_memory #(
      .DATA_W(DATA_W), .ADDR_W(ADDR_W), .BYTES(BYTES), .ORIGIN(ORIGIN)
  ) external (
      .clk(clk), .rst(rst), .s_axi_araddr(araddr), .s_axi_arlen(arlen), .s_axi_arid(arid),
      .s_axi_arvalid(arvalid), .s_axi_arready(arready), .s_axi_rdata(rdata),
      .s_axi_rresp(rresp), .s_axi_rlast(rlast), .s_axi_rid(rid), .s_axi_rvalid(rvalid),
      .s_axi_rready(rready), .s_axi_awaddr(awaddr), .s_axi_awlen(awlen), .s_axi_awid(awid),
      .s_axi_awvalid(awvalid), .s_axi_awready(awready), .s_axi_wdata(wdata),
      .s_axi_wstrb(wstrb), .s_axi_wlast(wlast), .s_axi_wvalid(wvalid), .s_axi_wready(wready),
      .s_axi_bresp(bresp), .s_axi_bid(bid), .s_axi_bvalid(bvalid), .s_axi_bready(bready)
  );

  axi_checker #(
      .DATA_W(DATA_W), .ADDR_W(ADDR_W)
  ) checker_i (
      .clk(clk), .rst(rst), .araddr(araddr), .arlen(arlen),
      .arrest({arsize, arburst, arid, arcache, arprot, arqos}), .arvalid(arvalid),
      .arready(arready), .rlast(rlast), .rvalid(rvalid), .rready(rready), .awaddr(awaddr),
      .awlen(awlen), .awrest({awsize, awburst, awid, awcache, awprot, awqos}),
      .awvalid(awvalid), .awready(awready), .wdata(wdata), .wstrb(wstrb), .wlast(wlast),
      .wvalid(wvalid), .wready(wready), .bvalid(bvalid), .bready(bready)
  );

  // Memories; the engine's ports are idle
  event write_back;

  beat_memory #(
      .PAYLOAD_W(DATA_W - 1), .WIDTH(FIELD_W), .BEATS(FEED_BEATS)
  ) feed_memory (
      .clk(clk), .write(feed_write), .write_beat(feed_write_beat), .write_data(weight_data),
      .read(1'b0), .read_addr({FEED_ADDR_W{1'b0}}), .word()
  );

  bank_memory #(
      .WORDS(PARAM_WORDS), .LANES(1), .LANE_W(PARAM_W)
  ) param_memory (
      .clk(clk), .write(param_write), .write_lanes(1'b1), .write_addr(param_write_addr),
      .write_data(param_write_data), .read(1'b0), .read_addr({PARAM_ADDR_W{1'b0}}), .word()
  );

  generate
    for (i = 0; i < COLS; i = i + 1) begin : g_stream
      beat_memory #(
          .PAYLOAD_W(DATA_W - 1), .WIDTH(FIELD_W), .BEATS(STREAM_BEATS)
      ) stream (
          .clk(clk), .write(stream_write[i]), .write_beat(stream_write_beat),
          .write_data(weight_data), .read(1'b0), .read_addr({STREAM_ADDR_W{1'b0}}), .word()
      );
      always @(write_back) $writememh($sformatf("stream_%0d.txt", i), stream.memory);
    end
    for (i = 0; i < ROWS; i = i + 1) begin : g_bank
      bank_memory #(
          .WORDS(ACT_WORDS), .LANES(FEED), .LANE_W(CODE_W)
      ) activations (
          .clk(clk), .write(act_write[i]), .write_lanes(act_write_part[i*FEED+:FEED]),
          .write_addr(act_write_addr[i*ACT_ADDR_W+:ACT_ADDR_W]),
          .write_data(act_write_data[i*WORD_W+:WORD_W]),
          .read(1'b0), .read_addr({ACT_ADDR_W{1'b0}}), .word()
      );
      bank_memory #(
          .WORDS(OUT_WORDS), .LANES(FEED), .LANE_W(CODE_W)
      ) outputs (
          .clk(clk), .write(1'b0), .write_lanes({FEED{1'b0}}), .write_addr({OUT_ADDR_W{1'b0}}),
          .write_data({WORD_W{1'b0}}), .read(out_read),
          .read_addr(out_read_addr[i*OUT_ADDR_W+:OUT_ADDR_W]),
          .word(out_read_data[i*WORD_W+:WORD_W])
      );
      initial $readmemh($sformatf("output_%0d.hex", i), outputs.memory);
      always @(write_back) $writememh($sformatf("activation_%0d.txt", i), activations.memory);
    end
  endgenerate

  // Operations
  integer count, patience, file, index, field, waited, age;
  reg running = 1'b0, starting = 1'b0;
  reg [31:0] cycle = 0;

  function used(input [2:0] kind, input integer index);
    case (kind)
      3'd0: used = index == 7;
      3'd1: used = index >= 8 && index <= 13;
      3'd2: used = index >= 14 && index <= 30 && index != 28 && index != 29;
      3'd3: used = index >= 15 && index <= 30 && index != 18;
      default: used = index >= 31;
    endcase
  endfunction

  task finish_operation(input [8*8-1:0] how);
    begin
      $fwrite(file, "%0d E %0s %0d\n", cycle, how, errors);
      running <= 1'b0;
      index = index + 1;
      waited = 0;
      prepare;
    end
  endtask

  task prepare;
    if (index < count && waited >= operations[index*FIELDS]) begin
      op_start <= 1'b1;
      op_kind  <= operations[index*FIELDS+1][2:0];
      for (field = 0; field < FIELDS; field = field + 1)
        fields[32*field+:32] <= field <= 6 || used(operations[index*FIELDS+1][2:0], field) ?
                                operations[index*FIELDS+field] : 'x;
      running <= 1'b1;
      age = -1;
    end
  endtask

  initial begin
    if (!$value$plusargs("operations=%d", count)) count = 0;
    if (!$value$plusargs("patience=%d", patience)) patience = 100000;
    $readmemh("operations.hex", operations, 0, FIELDS * count - 1);
    file = $fopen("events.txt");
    index = 0;
    waited = 0;
    repeat (3) @(posedge clk);
    rst <= 1'b0;
    @(posedge clk);
    while (index < count) begin
      @(posedge clk);
      cycle <= cycle + 1;
      op_start <= 1'b0;
      if (op_start) $fwrite(file, "%0d S %0d\n", cycle, op_kind);
      if (arvalid && arready && !rst) $fwrite(file, "%0d AR %0d %0d\n", cycle, araddr - ORIGIN, arlen);
      if (rvalid && rready && !rst) $fwrite(file, "%0d R\n", cycle);
      if (awvalid && awready && !rst) $fwrite(file, "%0d AW %0d %0d\n", cycle, awaddr - ORIGIN, awlen);
      if (wvalid && wready && !rst) $fwrite(file, "%0d W\n", cycle);
      if (bvalid && bready && !rst) $fwrite(file, "%0d B\n", cycle);
      if (desc_write) $fwrite(file, "%0d D %0d %h\n", cycle, desc_index, desc_data);
      if (rst) begin
        rst <= 1'b0;
        finish_operation("reset");
      end else if (running) begin
        age = age + 1;
        if (op_start && op_kind == STORE) fields[32*FIELDS-1:32*31] <= 'x;
        if (age + 1 == cfg[3] && !op_done) rst <= 1'b1;
        if (age + 1 == cfg[2] || cfg[4][0] && errors != 0) op_abort <= 1'b1;
        if (op_done) begin
          op_abort <= 1'b0;
          finish_operation("done");
        end else if (op_abort && idle) begin
          op_abort <= 1'b0;
          finish_operation("aborted");
        end else if (age > patience) begin
          $display("violation: operation %0d takes more than %0d cycles", index, patience);
          index = count;
        end
      end else begin
        waited = waited + 1;
        prepare;
      end
    end
    #1;  // the last cycle's writes
    $fclose(file);
    -> write_back;
    $writememh("feed.txt", feed_memory.memory);
    $writememh("parameters.txt", param_memory.memory);
    $writememh("memory.txt", external.memory);
    #1;
    $finish(0);
  end
endmodule

`default_nettype wire

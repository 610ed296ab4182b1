`default_nettype none

// Simulation only: napier_top between a host and a memory. The host starts one program, waits for
// the interrupt, and reads status and counters.
//
// Plusargs: +program=N offset of the first descriptor, +layers=N layers whose counters are read,
// +limit=K cycles after which the host gives up, +waves (waves.fst, from vvp -fst), and those of
// axi_memory, whose byte 0 is at address BASE. `finished` rises when everything is read:
//   status, error, descriptor, cycles    STATUS (0: given up), ERROR, DESCRIPTOR, CYCLES
//   counter[12 * i + k]                  counter k of layer i (docs/programming.md, section 4)
//   total[k]                             the same, summed over the run
// With REPORT = 1 they are written to counters.txt (status error descriptor cycles; totals; a line
// for each layer; the first only, if given up), the bytes +first=A to +last=A of the memory to memory.hex, and the simulation ends.
module top_harness #(
    // array
    parameter integer ROWS         = 4,
    parameter integer COLS         = 4,
    parameter integer FEED         = 1,
    parameter integer DEPTH        = 1,
    parameter integer PE_KIND      = 0,
    parameter integer TERMS        = 1,
    parameter integer CODE_W       = 8,
    parameter integer WEIGHT_W     = 9,
    parameter integer ACC_BITS     = 32,
    parameter integer SATURATE     = 0,
    parameter integer EVENTS_W     = 16,
    parameter integer SPILL        = 0,
    parameter integer WIDE_BITS    = 32,
    parameter integer VECTOR       = 1,
    // post-processor
    parameter integer LANES        = 1,
    parameter integer POST_W       = 32,
    parameter integer WINOGRAD     = 0,
    parameter integer CHUNK_WORDS  = 64,
    // bus and memories
    parameter integer DATA_W       = 64,
    parameter integer ADDR_W       = 40,
    parameter integer FEED_BEATS   = 64,
    parameter integer STREAM_BEATS = 64,
    parameter integer PARAM_WORDS  = 64,
    parameter integer ACT_WORDS    = 64,
    parameter integer OUT_WORDS    = 64,
    parameter integer LAYERS       = 64,
    parameter [31:0]  MACHINE_ID   = 0,
    // simulation
    parameter integer MEMORY_BYTES = 1 << 20,
    parameter [63:0]  BASE         = 0,
    parameter integer REPORT       = 1
);
  localparam [11:0] CONTROL = 12'h014;
  localparam [11:0] STATUS = 12'h018;
  localparam [11:0] ERROR = 12'h01C;
  localparam [11:0] DESCRIPTOR = 12'h020;
  localparam [11:0] BASE_LOW = 12'h024;
  localparam [11:0] BASE_HIGH = 12'h028;
  localparam [11:0] PROGRAM = 12'h02C;
  localparam [11:0] INTERRUPT_ENABLE = 12'h030;
  localparam [11:0] CYCLES_LOW = 12'h038;
  localparam [11:0] CYCLES_HIGH = 12'h03C;
  localparam [11:0] LAYER = 12'h040;
  localparam [11:0] LAYER_COUNTERS = 12'h080;
  localparam [11:0] TOTAL_COUNTERS = 12'h0C0;
  localparam integer COUNTERS = 12;

  reg clk = 1'b0;
  reg rst = 1'b1;
  always #5 clk = !clk;

  // AXI4-Lite
  reg [11:0] lite_awaddr, lite_araddr;
  reg lite_awvalid = 1'b0;
  reg lite_wvalid = 1'b0;
  reg lite_bready = 1'b0;
  reg lite_arvalid = 1'b0;
  reg lite_rready = 1'b0;
  reg [31:0] lite_wdata;
  wire lite_awready, lite_wready, lite_bvalid, lite_arready, lite_rvalid, irq;
  wire [1:0] lite_bresp, lite_rresp;
  wire [31:0] lite_rdata;

  top_system #(
      .ROWS        (ROWS),
      .COLS        (COLS),
      .FEED        (FEED),
      .DEPTH       (DEPTH),
      .PE_KIND     (PE_KIND),
      .TERMS       (TERMS),
      .CODE_W      (CODE_W),
      .WEIGHT_W    (WEIGHT_W),
      .ACC_BITS    (ACC_BITS),
      .SATURATE    (SATURATE),
      .EVENTS_W    (EVENTS_W),
      .SPILL       (SPILL),
      .WIDE_BITS   (WIDE_BITS),
      .VECTOR      (VECTOR),
      .LANES       (LANES),
      .POST_W      (POST_W),
      .WINOGRAD    (WINOGRAD),
      .CHUNK_WORDS (CHUNK_WORDS),
      .DATA_W      (DATA_W),
      .ADDR_W      (ADDR_W),
      .FEED_BEATS  (FEED_BEATS),
      .STREAM_BEATS(STREAM_BEATS),
      .PARAM_WORDS (PARAM_WORDS),
      .ACT_WORDS   (ACT_WORDS),
      .OUT_WORDS   (OUT_WORDS),
      .LAYERS      (LAYERS),
      .MACHINE_ID  (MACHINE_ID),
      .MEMORY_BYTES(MEMORY_BYTES),
      .BASE        (BASE)
  ) u_system (
      .clk          (clk),
      .rst          (rst),
      .s_axi_awaddr (lite_awaddr),
      .s_axi_awprot (3'd0),
      .s_axi_awvalid(lite_awvalid),
      .s_axi_awready(lite_awready),
      .s_axi_wdata  (lite_wdata),
      .s_axi_wstrb  (4'hF),
      .s_axi_wvalid (lite_wvalid),
      .s_axi_wready (lite_wready),
      .s_axi_bresp  (lite_bresp),
      .s_axi_bvalid (lite_bvalid),
      .s_axi_bready (lite_bready),
      .s_axi_araddr (lite_araddr),
      .s_axi_arprot (3'd0),
      .s_axi_arvalid(lite_arvalid),
      .s_axi_arready(lite_arready),
      .s_axi_rdata  (lite_rdata),
      .s_axi_rresp  (lite_rresp),
      .s_axi_rvalid (lite_rvalid),
      .s_axi_rready (lite_rready),
      .irq          (irq)
  );

  // Host. Inputs change at the falling edge and outputs are sampled a little later, so that no race
  // decides what the rising edge sees.
  integer limit, layers, layer, k;
  reg [31:0] program_offset;
  reg [1:0] answer;
  reg [2:0] taken;  // {response, data, address}
  reg [31:0] value;
  reg [31:0] status = 32'd0;
  reg [31:0] error = 32'd0;
  reg [31:0] descriptor = 32'd0;
  reg [63:0] cycles = 64'd0;
  reg [31:0] counter[0:LAYERS*COUNTERS-1];
  reg [31:0] total[0:COUNTERS-1];
  reg finished = 1'b0;

  task check_answer;
    input [11:0] address;
    begin
      if (answer != 2'b00) begin
        $display("register %h answered %b", address, answer);
        $finish;
      end
    end
  endtask

  task write_register;
    input [11:0] address;
    input [31:0] data;
    begin
      lite_awaddr  = address;
      lite_wdata   = data;
      lite_awvalid = 1'b1;
      lite_wvalid  = 1'b1;
      lite_bready  = 1'b1;
      while (lite_bready) begin
        #1;
        taken  = {lite_bvalid, lite_wready, lite_awready};
        answer = lite_bresp;
        @(negedge clk);
        if (taken[0]) lite_awvalid = 1'b0;
        if (taken[1]) lite_wvalid = 1'b0;
        if (taken[2]) lite_bready = 1'b0;
      end
      check_answer(address);
    end
  endtask

  task read_register;
    input [11:0] address;
    begin
      lite_araddr  = address;
      lite_arvalid = 1'b1;
      lite_rready  = 1'b1;
      while (lite_rready) begin
        #1;
        taken  = {lite_rvalid, 1'b0, lite_arready};
        answer = lite_rresp;
        value  = lite_rdata;
        @(negedge clk);
        if (taken[0]) lite_arvalid = 1'b0;
        if (taken[2]) lite_rready = 1'b0;
      end
      check_answer(address);
    end
  endtask

  task start_program;
    begin
      write_register(BASE_LOW, BASE[31:0]);
      write_register(BASE_HIGH, BASE[63:32]);
      write_register(PROGRAM, program_offset);
      write_register(INTERRUPT_ENABLE, 32'd3);
      write_register(CONTROL, 32'd1);
    end
  endtask

  task wait_for_interrupt;
    begin
      while (!irq && limit > 0) begin
        @(negedge clk);
        limit = limit - 1;
      end
    end
  endtask

  task read_results;
    begin
      read_register(ERROR);
      error = value;
      read_register(DESCRIPTOR);
      descriptor = value;
      read_register(CYCLES_LOW);
      cycles[31:0] = value;
      read_register(CYCLES_HIGH);
      cycles[63:32] = value;
      for (k = 0; k < COUNTERS; k = k + 1) begin
        read_register(TOTAL_COUNTERS + 4 * k);
        total[k] = value;
      end
      for (layer = 0; layer < layers; layer = layer + 1) begin
        write_register(LAYER, layer);
        for (k = 0; k < COUNTERS; k = k + 1) begin
          read_register(LAYER_COUNTERS + 4 * k);
          counter[layer*COUNTERS+k] = value;
        end
      end
      read_register(STATUS);
      status = value;
    end
  endtask

  integer file, first, last;

  task report;
    begin
      file = $fopen("counters.txt", "w");
      $fwrite(file, "%0d %0d %0d %0d\n", status, error, descriptor, cycles);
      if (status != 0) begin
        for (k = 0; k < COUNTERS; k = k + 1) $fwrite(file, "%0d ", total[k]);
        $fwrite(file, "\n");
        for (layer = 0; layer < layers; layer = layer + 1) begin
          for (k = 0; k < COUNTERS; k = k + 1) $fwrite(file, "%0d ", counter[layer*COUNTERS+k]);
          $fwrite(file, "\n");
        end
      end
      $fclose(file);
      $writememh("memory.hex", u_system.u_memory.memory, first, last);
    end
  endtask

  initial begin
    if (!$value$plusargs("program=%d", program_offset)) program_offset = 32'd0;
    if (!$value$plusargs("layers=%d", layers)) layers = 0;
    if (!$value$plusargs("limit=%d", limit)) limit = 1000000000;
    if (!$value$plusargs("first=%d", first)) first = 0;
    if (!$value$plusargs("last=%d", last)) last = MEMORY_BYTES - 1;
    if ($test$plusargs("waves")) begin
      $dumpfile("waves.fst");
      $dumpvars(0, u_system.u_top);
    end
    repeat (4) @(negedge clk);
    rst = 1'b0;
    @(negedge clk);
    start_program;
    wait_for_interrupt;
    if (limit > 0) read_results;
    finished = 1'b1;
    if (REPORT) begin
      report;
      $finish;
    end
  end
endmodule

`default_nettype wire

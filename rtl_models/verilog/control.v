`default_nettype none

// The control of the accelerator: registers, descriptors, order of transfers and runs, counters.
//
// Everything but the dma, the memories and the engine. A program begins with a write of CONTROL and
// ends with the interrupt; see axi_lite_registers, descriptor, sequencer and layer_counters.
// Synchronous reset at any time.
//
//   port            meaning
//   loading         words of the descriptor being loaded, stable while its transfers take place
//   running         words of the descriptor of the pass that runs or ran last (of the store, in the
//                   cycle of its op_start)
//   clear           resets dma and engine after an error
//   run_*           counters of the engine, final from the cycle after engine_done
//
// rules T4, T5, T10; sections 3 to 5 of docs/programming.md.
module control #(
    parameter integer ROWS          = 4,
    parameter integer COLS          = 4,
    parameter integer FEED          = 1,
    parameter integer PE_KIND       = 0,
    parameter integer TERMS         = 1,
    parameter integer CODE_W        = 8,
    parameter integer ACC_BITS      = 32,
    parameter integer SATURATE      = 0,
    parameter integer VECTOR        = 1,
    parameter integer WINOGRAD      = 0,
    parameter integer CHUNK_WORDS   = 64,
    parameter integer LANES         = 1,
    parameter integer DATA_W        = 64,
    parameter integer ADDR_W        = 40,
    parameter integer COORD_W       = 20,
    parameter integer FEED_ADDR_W   = 10,
    parameter integer STREAM_ADDR_W = 10,
    parameter integer CHANNEL_W     = 10,
    parameter integer ACT_WORDS     = 64,
    parameter integer OUT_WORDS     = 64,
    parameter integer LAYERS        = 64,
    parameter [31:0] MACHINE_ID     = 0,
    // derived
    parameter integer WORDS         = 64 + ROWS,
    parameter integer BEATS         = 32 * ((WORDS + 31) / 32) / (DATA_W / 32),
    parameter integer INDEX_W       = $clog2(BEATS)
) (
    input wire clk,
    input wire rst,

    // host
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

    // dma
    output wire               op_start,
    output wire [        2:0] op_kind,
    input  wire               op_done,
    output wire               dma_abort,
    input  wire               dma_idle,
    output wire [ ADDR_W-1:0] base,
    output wire [       31:0] descriptor_offset,
    input  wire               error_read,
    input  wire               error_write,
    input  wire               error_bounds,
    input  wire               error_block,
    input  wire               desc_write,
    input  wire [INDEX_W-1:0] desc_index,
    input  wire [ DATA_W-1:0] desc_data,

    // engine
    output wire        engine_start,
    input  wire        engine_done,
    input  wire [31:0] run_compute,
    input  wire [31:0] run_fill,
    input  wire [31:0] run_stall_feed,
    input  wire [31:0] run_drain,
    input  wire [31:0] run_overflow_events,
    input  wire [31:0] run_overflow_outputs,

    // dma and engine
    output wire                clear,
    output wire [WORDS*32-1:0] loading,
    output wire [WORDS*32-1:0] running
);
  localparam integer LAYER_W = LAYERS > 1 ? $clog2(LAYERS) : 1;

  wire start, abort_run, busy, finished, failed;
  wire [3:0] error, counter;
  wire [31:0] program_offset, descriptor_index, shown_layer, layer_count, total_count;
  wire [63:0] run_cycles;

  axi_lite_registers #(
      .ROWS      (ROWS),
      .COLS      (COLS),
      .FEED      (FEED),
      .LANES     (LANES),
      .PE_KIND   (PE_KIND),
      .TERMS     (TERMS),
      .ACC_BITS  (ACC_BITS),
      .SATURATE  (SATURATE),
      .CODE_W    (CODE_W),
      .DATA_W    (DATA_W),
      .ADDR_W    (ADDR_W),
      .MACHINE_ID(MACHINE_ID)
  ) u_registers (
      .clk             (clk),
      .rst             (rst),
      .s_axi_awaddr    (s_axi_awaddr),
      .s_axi_awprot    (s_axi_awprot),
      .s_axi_awvalid   (s_axi_awvalid),
      .s_axi_awready   (s_axi_awready),
      .s_axi_wdata     (s_axi_wdata),
      .s_axi_wstrb     (s_axi_wstrb),
      .s_axi_wvalid    (s_axi_wvalid),
      .s_axi_wready    (s_axi_wready),
      .s_axi_bresp     (s_axi_bresp),
      .s_axi_bvalid    (s_axi_bvalid),
      .s_axi_bready    (s_axi_bready),
      .s_axi_araddr    (s_axi_araddr),
      .s_axi_arprot    (s_axi_arprot),
      .s_axi_arvalid   (s_axi_arvalid),
      .s_axi_arready   (s_axi_arready),
      .s_axi_rdata     (s_axi_rdata),
      .s_axi_rresp     (s_axi_rresp),
      .s_axi_rvalid    (s_axi_rvalid),
      .s_axi_rready    (s_axi_rready),
      .irq             (irq),
      .start           (start),
      .abort_run       (abort_run),
      .base            (base),
      .program_offset  (program_offset),
      .busy            (busy),
      .finished        (finished),
      .failed          (failed),
      .error           (error),
      .descriptor_index(descriptor_index),
      .shown_layer     (shown_layer),
      .counter         (counter),
      .layer_count     (layer_count),
      .total_count     (total_count),
      .run_cycles      (run_cycles)
  );

  wire new_layer, take;
  wire [2:0] load_error;

  descriptor #(
      .ROWS         (ROWS),
      .COLS         (COLS),
      .FEED         (FEED),
      .LANES        (LANES),
      .CODE_W       (CODE_W),
      .VECTOR       (VECTOR),
      .WINOGRAD     (WINOGRAD),
      .CHUNK_WORDS  (CHUNK_WORDS),
      .DATA_W       (DATA_W),
      .COORD_W      (COORD_W),
      .FEED_ADDR_W  (FEED_ADDR_W),
      .STREAM_ADDR_W(STREAM_ADDR_W),
      .CHANNEL_W    (CHANNEL_W),
      .ACT_WORDS    (ACT_WORDS),
      .OUT_WORDS    (OUT_WORDS),
      .LAYERS       (LAYERS),
      .MACHINE_ID   (MACHINE_ID)
  ) u_descriptor (
      .clk       (clk),
      .desc_write(desc_write),
      .desc_index(desc_index),
      .desc_data (desc_data),
      .new_layer (new_layer),
      .error     (load_error),
      .take      (take),
      .loading   (loading),
      .running   (running)
  );

  wire load_activations = loading[39*32+:32] != '0;
  wire load_pairs = loading[2*32+10+:3] >= 3'd3;  // add, mul
  wire counting, run_ended, layer_end;
  wire [4:0] causes;
  wire [LAYER_W-1:0] layer;

  sequencer #(
      .DESCRIPTOR_BYTES(BEATS * DATA_W / 8),
      .LAYER_W         (LAYER_W)
  ) u_sequencer (
      .clk              (clk),
      .rst              (rst),
      .start            (start),
      .abort_run        (abort_run),
      .program_offset   (program_offset),
      .busy             (busy),
      .finished         (finished),
      .failed           (failed),
      .error            (error),
      .descriptor_index (descriptor_index),
      .descriptor_offset(descriptor_offset),
      .load_error       (load_error),
      .load_order       (loading[2*32+:2]),
      .load_program_end (loading[2*32+3]),
      .load_weights     (loading[34*32+:32] != '0),
      .load_activations (load_activations),
      .load_second      (load_activations && load_pairs),
      .load_new_layer   (new_layer),
      .take             (take),
      .run_layer_end    (running[2*32+2]),
      .run_layer        (running[3*32+:LAYER_W]),
      .run_stores       (running[53*32+:32] != '0),
      .op_start         (op_start),
      .op_kind          (op_kind),
      .op_done          (op_done),
      .dma_abort        (dma_abort),
      .dma_idle         (dma_idle),
      .error_read       (error_read),
      .error_write      (error_write),
      .error_bounds     (error_bounds),
      .error_block      (error_block),
      .engine_start     (engine_start),
      .engine_done      (engine_done),
      .clear            (clear),
      .counting         (counting),
      .causes           (causes),
      .run_ended        (run_ended),
      .layer_end        (layer_end),
      .layer            (layer)
  );

  layer_counters #(
      .LAYERS(LAYERS)
  ) u_counters (
      .clk                 (clk),
      .rst                 (rst),
      .clear               (start),
      .counting            (counting),
      .causes              (causes),
      .run_ended           (run_ended),
      .run_compute         (run_compute),
      .run_fill            (run_fill),
      .run_stall_feed      (run_stall_feed),
      .run_drain           (run_drain),
      .run_overflow_events (run_overflow_events),
      .run_overflow_outputs(run_overflow_outputs),
      .layer_end           (layer_end),
      .layer               (layer),
      .shown_layer         (shown_layer),
      .counter             (counter),
      .layer_count         (layer_count),
      .total_count         (total_count),
      .run_cycles          (run_cycles)
  );
endmodule

`default_nettype wire

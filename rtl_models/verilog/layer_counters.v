`default_nettype none

// Where the cycles of a program went: twelve counters of each layer and of the whole run.
//
// `clear` sets everything to 0. A cycle with `counting` adds one to `cycles` and to the counters of
// `causes`; `run_ended` adds the engine's counters of a run. At `layer_end`, what the layer counted
// up to and with this cycle goes to the layer memory. `counter` selects what is shown; a layer is
// shown from the cycle after `shown_layer`, as 0 if it has not ended since `clear`.
// The counters are cycles, compute, fill, stall_feed, drain, control, stall_descriptor,
// stall_weights, stall_activations, stall_outputs, overflow_events, overflow_outputs (rules E5, T10
// and D4), 32 bits each; they wrap. Reset is like `clear`.
module layer_counters #(
    parameter integer LAYERS  = 64,  // layers that the memory holds
    // derived
    parameter integer LAYER_W = LAYERS > 1 ? $clog2(LAYERS) : 1
) (
    input wire clk,
    input wire rst,
    input wire clear,

    // every cycle; causes, see sequencer
    input wire       counting,
    input wire [4:0] causes,

    // an engine run
    input wire        run_ended,
    input wire [31:0] run_compute,
    input wire [31:0] run_fill,
    input wire [31:0] run_stall_feed,
    input wire [31:0] run_drain,
    input wire [31:0] run_overflow_events,
    input wire [31:0] run_overflow_outputs,

    // a layer
    input wire               layer_end,
    input wire [LAYER_W-1:0] layer,

    // host
    input  wire [31:0] shown_layer,
    input  wire [ 3:0] counter,
    output wire [31:0] layer_count,
    output wire [31:0] total_count,
    output wire [63:0] run_cycles
);
  localparam integer COUNTERS = 12;
  localparam integer WORD_W = COUNTERS * 32;

  wire [6*32-1:0] run_counts = {
    run_overflow_outputs, run_overflow_events, run_drain, run_stall_feed, run_fill, run_compute
  };
  wire [6*32-1:0] run_added = run_ended ? run_counts : '0;
  wire [WORD_W-1:0] added = {
    run_added[4*32+:2*32],
    31'd0, causes[4],
    31'd0, causes[3],
    31'd0, causes[2],
    31'd0, causes[1],
    31'd0, causes[0],
    run_added[0+:4*32],
    31'd0, counting
  };
  logic [63:0] cycles_q;
  wire [WORD_W-1:0] now, total;
  assign run_cycles = cycles_q;

  always_ff @(posedge clk) begin
    if (rst || clear) cycles_q <= '0;
    else cycles_q <= cycles_q + 64'(counting);
  end

  genvar k;
  generate
    for (k = 0; k < COUNTERS; k = k + 1) begin : g_counter
      logic [31:0] layer_q;  // of the layer so far

      assign now[k*32+:32] = layer_q + added[k*32+:32];

      always_ff @(posedge clk) begin
        if (rst || clear || layer_end) layer_q <= '0;
        else layer_q <= now[k*32+:32];
      end

      if (k == 0) begin : g_cycles
        assign total[31:0] = cycles_q[31:0];
      end else begin : g_total
        logic [31:0] total_q;

        assign total[k*32+:32] = total_q;

        always_ff @(posedge clk) begin
          if (rst || clear) total_q <= '0;
          else total_q <= total_q + added[k*32+:32];
        end
      end
    end
  endgenerate

  // Layer memory
  logic [WORD_W-1:0] memory[0:LAYERS-1];
  logic [LAYERS-1:0] ended_q;
  logic [WORD_W-1:0] shown_q;
  logic shown_ended_q;

  wire [LAYER_W-1:0] shown = shown_layer[LAYER_W-1:0];

  always_ff @(posedge clk) begin
    if (layer_end) memory[layer] <= now;
    shown_q <= memory[shown];
  end

  always_ff @(posedge clk) begin
    if (rst || clear) ended_q <= '0;
    else if (layer_end) ended_q[layer] <= 1'b1;
    shown_ended_q <= shown_layer < LAYERS && ended_q[shown];
  end

  assign layer_count = shown_ended_q ? shown_q[counter*32+:32] : '0;
  assign total_count = total[counter*32+:32];
endmodule

`default_nettype wire

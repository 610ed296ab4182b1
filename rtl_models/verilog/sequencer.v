`default_nettype none

// Runs a program: orders the transfers of its passes, starts their engine runs, stops at errors.
//
// `start` is sampled while `busy` is low (cycle 0); the first operation begins in cycle 1. An
// operation that begins in cycle s (`op_start`, unless it has nothing to do) ends in cycle e
// (`op_done`; e = s if it has nothing to do) and the next one begins in e + 1. The order is that of
// rule T4; a store waits for its pass's run. A pass whose loads ended in cycle E is taken over
// (`take`) in cycle c, the first after E in which the engine is idle, and started in c + 1 (T5).
// `finished` is high in the cycle after the last store. After an error (`error`, section 5 of
// docs/programming.md) no operation is started, the dma is told to abort, and when it is idle
// `clear` resets dma and engine for one cycle, in which `failed` is high.
// Synchronous reset at any time.
//
//   port               meaning
//   load_*             of the descriptor being loaded: valid from the end of its operation to the
//                      beginning of the next descriptor's
//   load_error         code of what is wrong with it, 0 if nothing
//   load_new_layer     its pass is the first of a layer
//   run_*              of the pass taken over last, from the cycle after `take`
//   op_kind            0 descriptor, 1 weights, 2 activations, 3 second operand, 4 store
//   causes             the cycle is one of control or of waiting for an operation (rule T10), none
//                      in the engine's: {outputs, activations, weights, descriptor, control}
//   counting           a cycle of the program
//   run_ended          the cycle after the engine's `done`
//   layer_end          the last cycle of layer `layer`
//
// rules T4, T5, T10.
module sequencer #(
    parameter integer DESCRIPTOR_BYTES = 384,
    parameter integer LAYER_W          = 6
) (
    input wire clk,
    input wire rst,

    // host
    input  wire        start,
    input  wire        abort_run,
    input  wire [31:0] program_offset,
    output wire        busy,
    output wire        finished,
    output wire        failed,
    output wire [ 3:0] error,
    output wire [31:0] descriptor_index,
    output wire [31:0] descriptor_offset,

    // descriptor
    input  wire [        2:0] load_error,
    input  wire [        1:0] load_order,
    input  wire               load_program_end,
    input  wire               load_weights,
    input  wire               load_activations,
    input  wire               load_second,
    output wire               load_new_layer,
    output wire               take,
    input  wire               run_layer_end,
    input  wire [LAYER_W-1:0] run_layer,
    input  wire               run_stores,

    // dma
    output wire       op_start,
    output wire [2:0] op_kind,
    input  wire       op_done,
    output wire       dma_abort,
    input  wire       dma_idle,
    input  wire       error_read,
    input  wire       error_write,
    input  wire       error_bounds,
    input  wire       error_block,

    // engine
    output wire engine_start,
    input  wire engine_done,

    // dma and engine
    output wire clear,

    // counters
    output wire               counting,
    output wire [        4:0] causes,
    output wire               run_ended,
    output wire               layer_end,
    output wire [LAYER_W-1:0] layer
);
  localparam [3:0] IDLE = 4'd0;
  localparam [3:0] DESCRIPTOR = 4'd1;
  localparam [3:0] WEIGHTS = 4'd2;
  localparam [3:0] ACTIVATIONS = 4'd3;
  localparam [3:0] SECOND = 4'd4;
  localparam [3:0] STORE = 4'd5;
  localparam [3:0] FINISH = 4'd6;
  localparam [3:0] STOP = 4'd7;
  localparam [3:0] CLEAR = 4'd8;

  localparam [1:0] WAITING = 2'd0;
  localparam [1:0] STARTING = 2'd1;
  localparam [1:0] RUNNING = 2'd2;

  localparam [1:0] STORE_LAST = 2'd0;  // after the loads
  localparam [1:0] STORE_BEFORE_ACTIVATIONS = 2'd1;
  localparam [1:0] STORE_BEFORE_WEIGHTS = 2'd2;

  logic [3:0] state_q, state_d;
  logic [1:0] engine_q;
  logic started_q;  // the operation of this state
  logic loaded_q;  // a pass waits for the engine
  logic first_q;  // no pass has been taken over yet
  logic last_q;  // the store of this state is the program's last one

  assign busy      = state_q != IDLE;
  assign clear     = state_q == CLEAR;
  assign dma_abort = state_q == STOP;
  assign failed    = clear;

  // The operation of this state. The last store waits until its pass has been taken over; any other
  // store's pass has been.
  wire operating = busy && state_q <= STORE;
  wire engine_idle = engine_q == WAITING;
  wire ready = state_q != STORE || engine_idle && !(last_q && loaded_q);
  logic something;

  always_comb begin
    case (state_q)
      WEIGHTS:     something = load_weights;
      ACTIVATIONS: something = load_activations;
      SECOND:      something = load_second;
      STORE:       something = run_stores && !first_q;
      default:     something = 1'b1;
    endcase
  end

  wire op_end = operating && (started_q ? op_done : ready && !something);
  assign op_start = operating && !started_q && ready && something;
  assign op_kind  = 3'(state_q - DESCRIPTOR);

  // Errors, the lowest code first
  logic [3:0] error_q, error_found;
  wire stop = (operating || state_q == FINISH) && error_found != '0;
  assign error    = error_q;
  assign finished = state_q == FINISH && !stop;

  always_comb begin
    if (error_read) error_found = 4'd1;
    else if (error_write) error_found = 4'd2;
    else if (op_end && state_q == DESCRIPTOR && load_error != '0) error_found = {1'b0, load_error};
    else if (error_bounds) error_found = 4'd6;
    else if (error_block) error_found = 4'd7;
    else if (abort_run) error_found = 4'd8;
    else error_found = 4'd0;
  end

  // Order of operations (T4)
  wire store_last = load_order == STORE_LAST;
  wire pass_end = op_end && (store_last ? state_q == STORE && !last_q : state_q == SECOND);
  wire next_descriptor = pass_end && !load_program_end;

  always_comb begin
    state_d = state_q;
    case (state_q)
      IDLE: if (start) state_d = DESCRIPTOR;
      DESCRIPTOR: if (op_end) state_d = load_order == STORE_BEFORE_WEIGHTS ? STORE : WEIGHTS;
      WEIGHTS: if (op_end) state_d = load_order == STORE_BEFORE_ACTIVATIONS ? STORE : ACTIVATIONS;
      ACTIVATIONS: if (op_end) state_d = SECOND;
      SECOND: if (op_end) state_d = store_last || load_program_end ? STORE : DESCRIPTOR;
      STORE: begin
        if (op_end) begin
          if (last_q) state_d = FINISH;
          else if (load_order == STORE_BEFORE_WEIGHTS) state_d = WEIGHTS;
          else if (load_order == STORE_BEFORE_ACTIVATIONS) state_d = ACTIVATIONS;
          else state_d = load_program_end ? STORE : DESCRIPTOR;
        end
      end
      STOP: if (dma_idle) state_d = CLEAR;
      default: state_d = IDLE;
    endcase
    if (stop) state_d = STOP;
  end

  logic [31:0] index_q, offset_q;
  assign descriptor_index  = index_q;
  assign descriptor_offset = offset_q;

  always_ff @(posedge clk) begin
    if (rst) begin
      state_q   <= IDLE;
      started_q <= 1'b0;
      last_q    <= 1'b0;
      error_q   <= '0;
      index_q   <= '0;
    end else begin
      state_q   <= state_d;
      started_q <= operating && !op_end && (started_q || op_start);
      if (start && !busy) begin
        last_q   <= 1'b0;
        error_q  <= '0;
        index_q  <= '0;
        offset_q <= program_offset;
      end else begin
        if (pass_end) last_q <= load_program_end;
        if (stop) begin
          error_q <= error_found;
        end else if (next_descriptor) begin
          index_q  <= index_q + 1'b1;
          offset_q <= offset_q + DESCRIPTOR_BYTES;
        end
      end
    end
  end

  // Engine runs (T5)
  logic run_ended_q;
  wire run_done = engine_q == RUNNING && engine_done;
  assign take           = operating && engine_idle && loaded_q;
  assign engine_start   = operating && engine_q == STARTING;
  assign run_ended      = run_ended_q;
  assign load_new_layer = first_q || run_layer_end;

  always_ff @(posedge clk) begin
    if (rst || clear || !busy) begin
      engine_q    <= WAITING;
      loaded_q    <= 1'b0;
      first_q     <= 1'b1;
      run_ended_q <= 1'b0;
    end else begin
      if (take) engine_q <= STARTING;
      else if (engine_start) engine_q <= RUNNING;
      else if (run_done) engine_q <= WAITING;
      if (take || state_q == SECOND && op_end) loaded_q <= !take;
      if (take) first_q <= 1'b0;
      run_ended_q <= run_done;
    end
  end

  // The layer of the store, which outlasts its pass's configuration
  logic store_layer_end_q;
  logic [LAYER_W-1:0] store_layer_q;

  always_ff @(posedge clk) begin
    if (op_start) begin
      store_layer_end_q <= run_layer_end;
      store_layer_q     <= run_layer;
    end
  end

  assign layer_end = state_q == STORE && op_end && !stop &&
      (started_q ? store_layer_end_q : run_layer_end && !first_q);
  assign layer = started_q ? store_layer_q : run_layer;

  // Causes (T10)
  wire control = take || engine_start;
  wire transfer = operating && !control && engine_q != RUNNING;
  assign counting = operating;
  assign causes = {
    transfer && state_q == STORE,
    transfer && (state_q == ACTIVATIONS || state_q == SECOND),
    transfer && state_q == WEIGHTS,
    transfer && state_q == DESCRIPTOR,
    operating && control
  };
endmodule

`default_nettype wire

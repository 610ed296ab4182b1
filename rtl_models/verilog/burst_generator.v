`default_nettype none

// Cuts runs of bytes into AXI bursts and keeps at most 8 of them outstanding (rule T6).
//
// A run is the whole beats from the one that holds its first byte to the one that holds its last.
// Run i begins at start_addr + i * start_stride. A burst ends at the run's end, at a multiple of
// 4096 bytes and after 256 beats, whichever comes first. The first burst is offered in the cycle
// after `start`, then one a cycle as fast as they are taken and end.
//
// A burst once offered stays until it is taken, also where `op_abort` rises; no other follows then.
// Reset: nothing active, nothing outstanding.
//
//   port          meaning
//   start         all start_* are sampled; start_bytes and start_runs are at least 1
//   valid, ready  a burst: its first byte `addr`, a multiple of a beat, and its beats less one
//   offered       `valid` rose for this burst in this cycle
//   burst_end     a burst has ended in this cycle: its last beat was read, or its response came
//   active        some burst has not yet been taken
//   outstanding   bursts that were taken and have not ended
module burst_generator #(
    parameter integer ADDR_W  = 40,
    parameter integer DATA_W  = 64,
    parameter integer BYTES_W = 40   // length of a run
) (
    input wire clk,
    input wire rst,
    input wire op_abort,

    // the runs
    input wire               start,
    input wire [ ADDR_W-1:0] start_addr,
    input wire [BYTES_W-1:0] start_bytes,
    input wire [       31:0] start_stride,
    input wire [       31:0] start_runs,

    // bursts
    output wire              valid,
    input  wire              ready,
    output wire [ADDR_W-1:0] addr,
    output wire [       7:0] beats_less_1,
    output wire              offered,
    input  wire              burst_end,

    // status
    output wire       active,
    output wire [3:0] outstanding
);
  localparam integer BEAT_BITS = $clog2(DATA_W / 8);  // address bits inside a beat
  localparam integer PAGE_BEATS = 4096 >> BEAT_BITS;
  localparam integer LEN_W = 9 + (PAGE_BEATS > 256 ? 2 : 0);  // holds PAGE_BEATS and 256
  localparam [3:0] MOST_OUTSTANDING = 4'd8;

  // Beats that a run of `bytes` touches where it begins at `first` of a beat
  function automatic [BYTES_W-1:0] beats_of(input [BEAT_BITS-1:0] first, input [BYTES_W-1:0] bytes);
    logic [BYTES_W:0] end_byte;
    end_byte = {1'b0, bytes} + (BYTES_W + 1)'(first) + (BYTES_W + 1)'((1 << BEAT_BITS) - 1);
    beats_of = BYTES_W'(end_byte >> BEAT_BITS);
  endfunction

  logic active_q, pending_q;  // pending: offered in an earlier cycle and not yet taken
  logic [3:0] outstanding_q;
  logic [ADDR_W-1:0] run_addr_q;             // first byte of the run
  logic [ADDR_W-1:BEAT_BITS] beat_addr_q;    // of the next burst
  logic [BYTES_W-1:0] left_q;  // beats of the run from there
  logic [BYTES_W-1:0] bytes_q;
  logic [31:0] stride_q, runs_left_q;

  // The burst
  wire [LEN_W-1:0] to_page = LEN_W'(PAGE_BEATS) - LEN_W'(beat_addr_q[11:BEAT_BITS]);
  wire [LEN_W-1:0] most = to_page > LEN_W'(256) ? LEN_W'(256) : to_page;
  wire run_end = left_q <= BYTES_W'(most);
  wire [LEN_W-1:0] beats = run_end ? LEN_W'(left_q) : most;
  wire taken = valid && ready;

  assign valid = active_q && outstanding_q < MOST_OUTSTANDING && (!op_abort || pending_q);
  assign addr = {beat_addr_q, {BEAT_BITS{1'b0}}};
  assign beats_less_1 = 8'(beats - 1'b1);
  assign offered = valid && !pending_q;
  assign active = active_q;
  assign outstanding = outstanding_q;

  // The next one
  wire [ADDR_W-1:0] next_run = run_addr_q + ADDR_W'(stride_q);
  wire [ADDR_W-1:BEAT_BITS] next_burst = beat_addr_q + (ADDR_W - BEAT_BITS)'(beats);

  always_ff @(posedge clk) begin
    if (rst) begin
      active_q      <= 1'b0;
      pending_q     <= 1'b0;
      outstanding_q <= '0;
    end else begin
      pending_q <= valid && !ready;
      if (taken != burst_end) outstanding_q <= taken ? outstanding_q + 1'b1 : outstanding_q - 1'b1;
      if (start) active_q <= 1'b1;
      else if (taken && run_end && runs_left_q == 32'd1 || op_abort && !valid) active_q <= 1'b0;
    end
  end

  always_ff @(posedge clk) begin
    if (start) begin
      beat_addr_q <= start_addr[ADDR_W-1:BEAT_BITS];
      run_addr_q  <= start_addr;
      left_q      <= beats_of(start_addr[BEAT_BITS-1:0], start_bytes);
      bytes_q     <= start_bytes;
      stride_q    <= start_stride;
      runs_left_q <= start_runs;
    end else if (taken) begin
      beat_addr_q <= run_end ? next_run[ADDR_W-1:BEAT_BITS] : next_burst;
      left_q <= run_end ? beats_of(next_run[BEAT_BITS-1:0], bytes_q) : left_q - BYTES_W'(beats);
      if (run_end) begin
        run_addr_q  <= next_run;
        runs_left_q <= runs_left_q - 1'b1;
      end
    end
  end
endmodule

`default_nettype wire

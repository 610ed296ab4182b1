`default_nettype none
// Accumulate stage and shadow registers of a PE (rules P2 to P5).
//
//   base = clear ? 0 : acc              acc = step ? fit(base + addend) : base
//   events counts the sums that did not fit, overflow remembers that there was one
//   clear: result, result_overflow, result_events take the old contents
//
// SPILL = 0: one accumulator of ACC_BITS. SPILL > 0: a step that finds SPILL steps in acc first adds
// acc to `wide` (WIDE_BITS) and starts acc from 0; the result is wide + acc. Every one of these sums is
// fitted by the same rule (SATURATE: 0 wraps, 1 saturates), and counted where it does not fit.
//
// Latency: step to acc 1 cycle, clear to result 1 cycle; one step a cycle, spilling included.
// Reset: synchronous, everything 0. Golden: golden.operators.accumulators.
//
//   clk, rst         in
//   step             in   1         add `addend` in this cycle
//   clear            in   1         hand the contents on and start again, with this step if there is one
//   addend           in   ADDEND_W  signed
//   result           out  SPILL > 0 ? WIDE_BITS : ACC_BITS   signed
//   result_overflow  out  1
//   result_events    out  EVENTS_W  stays at its maximum
module pe_accumulator #(
  parameter integer ADDEND_W = 18,
  parameter integer ACC_BITS = 32,
  parameter integer SATURATE = 0,
  parameter integer EVENTS_W = 16,
  parameter integer SPILL = 0,
  parameter integer WIDE_BITS = 32
) (
  input  wire                       clk,
  input  wire                       rst,
  input  wire                       step,
  input  wire                       clear,
  input  wire signed [ADDEND_W-1:0] addend,
  output wire signed [(SPILL > 0 ? WIDE_BITS : ACC_BITS)-1:0] result,
  output wire                       result_overflow,
  output wire        [EVENTS_W-1:0] result_events
);

  localparam integer RESULT_W = SPILL > 0 ? WIDE_BITS : ACC_BITS;
  localparam integer SUM_W = (ACC_BITS > ADDEND_W ? ACC_BITS : ADDEND_W) + 1;
  // A step has at most two events: its own and the one of a spill.
  localparam integer COUNT_W = EVENTS_W + 1;

`ifndef SYNTHESIS
  initial begin
    if (ADDEND_W < 2 || ACC_BITS < 2)
      $fatal(1, "%m: ADDEND_W (%0d) and ACC_BITS (%0d) must be at least 2", ADDEND_W, ACC_BITS);
    if (EVENTS_W < 1) $fatal(1, "%m: EVENTS_W must be at least 1, not %0d", EVENTS_W);
    if (SPILL < 0) $fatal(1, "%m: SPILL must not be negative, but is %0d", SPILL);
    if (SPILL > 0 && WIDE_BITS < ACC_BITS)
      $fatal(1, "%m: WIDE_BITS (%0d) must not be below ACC_BITS (%0d)", WIDE_BITS, ACC_BITS);
  end
`endif

  logic signed [ACC_BITS-1:0] acc_q;
  logic                       overflow_q;
  logic        [EVENTS_W-1:0] events_q;
  logic signed [RESULT_W-1:0] result_q;
  logic                       result_overflow_q;
  logic        [EVENTS_W-1:0] result_events_q;

  // Second stage: what it does in this cycle, and what the result is if this cycle clears.
  wire                       spill;
  wire                       spill_event;
  wire signed [RESULT_W-1:0] total;
  wire                       total_event;

  // P2: the step
  wire signed [ACC_BITS-1:0] base = (clear || spill) ? '0 : acc_q;
  wire signed [SUM_W-1:0]    sum = SUM_W'(base) + SUM_W'(addend);
  wire signed [ACC_BITS-1:0] fitted;
  wire                       sum_overflow;
  fit_signed #(
    .IN_W    (SUM_W),
    .OUT_W   (ACC_BITS),
    .SATURATE(SATURATE)
  ) u_fit_sum (
    .value   (sum),
    .fitted  (fitted),
    .overflow(sum_overflow)
  );
  wire signed [ACC_BITS-1:0] acc_d = step ? fitted : base;
  wire step_event = step && sum_overflow;

  // P3: sticky flag and counter
  function automatic [EVENTS_W-1:0] clip(input [COUNT_W-1:0] count);
    clip = count[EVENTS_W] ? '1 : count[EVENTS_W-1:0];
  endfunction

  wire [EVENTS_W-1:0] events_base = clear ? '0 : events_q;
  wire [EVENTS_W-1:0] events_d = clip(
      COUNT_W'(events_base) + COUNT_W'(step_event) + COUNT_W'(spill_event));
  wire overflow_d = (!clear && overflow_q) || step_event || spill_event;

  // P5: the wide accumulator
  generate
    if (SPILL > 0) begin : g_spill
      localparam integer STEPS_W = $clog2(SPILL + 1);
      localparam integer WIDE_SUM_W = WIDE_BITS + 1;
      logic signed [WIDE_BITS-1:0] wide_q;
      logic        [STEPS_W-1:0]   count_q;

      wire signed [WIDE_SUM_W-1:0] wide_sum = WIDE_SUM_W'(wide_q) + WIDE_SUM_W'(acc_q);
      wire                         wide_overflow;
      fit_signed #(
        .IN_W    (WIDE_SUM_W),
        .OUT_W   (WIDE_BITS),
        .SATURATE(SATURATE)
      ) u_fit_wide (
        .value   (wide_sum),
        .fitted  (total),
        .overflow(wide_overflow)
      );
      assign spill = step && !clear && count_q == STEPS_W'(SPILL);
      assign spill_event = spill && wide_overflow;
      assign total_event = wide_overflow;

      wire signed [WIDE_BITS-1:0] wide_d = clear ? '0 : spill ? total : wide_q;
      wire [STEPS_W-1:0] count_d =
          ((clear || spill) ? '0 : count_q) + STEPS_W'(step);

      always_ff @(posedge clk) begin
        if (rst) begin
          wide_q  <= '0;
          count_q <= '0;
        end else begin
          wide_q  <= wide_d;
          count_q <= count_d;
        end
      end
    end else begin : g_no_spill
      assign spill = 1'b0;
      assign spill_event = 1'b0;
      assign total = acc_q;
      assign total_event = 1'b0;
    end
  endgenerate

  always_ff @(posedge clk) begin
    if (rst) begin
      acc_q      <= '0;
      overflow_q <= 1'b0;
      events_q   <= '0;
    end else begin
      acc_q      <= acc_d;
      overflow_q <= overflow_d;
      events_q   <= events_d;
    end
  end

  // P4: shadow registers
  wire result_overflow_d = overflow_q || total_event;
  wire [EVENTS_W-1:0] result_events_d = clip(COUNT_W'(events_q) + COUNT_W'(total_event));

  always_ff @(posedge clk) begin
    if (rst) begin
      result_q          <= '0;
      result_overflow_q <= 1'b0;
      result_events_q   <= '0;
    end else if (clear) begin
      result_q          <= total;
      result_overflow_q <= result_overflow_d;
      result_events_q   <= result_events_d;
    end
  end

  assign result = result_q;
  assign result_overflow = result_overflow_q;
  assign result_events = result_events_q;

endmodule
`default_nettype wire

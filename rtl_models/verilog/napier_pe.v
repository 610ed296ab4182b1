`default_nettype none
// Processing element: operand stage (rule P1), addend of the chosen kind, accumulate stage.
//
//   PE_KIND 0 mac        addend = x * code
//   PE_KIND 1 shift_add  addend = x * (sum of TERMS signed powers of two)
//   PE_KIND 2 ternary    addend = 0, +x or -x
//
// Latency: operand at the ports in cycle t, in acc from t+2 on; clear at the ports in t, result from
// t+2 on. One step a cycle. Reset: synchronous, everything 0.
//
//   clk, rst         in
//   issue            in   1       x and code are taken
//   step             in   1       they add something (implies issue)
//   clear            in   1       the accumulator is handed on before this operand is added
//   x                in   X_W     signed operand
//   code             in   CODE_W  rule S2
//   result           out  SPILL > 0 ? WIDE_BITS : ACC_BITS   signed, shadow register
//   result_overflow  out  1
//   result_events    out  EVENTS_W
module napier_pe #(
  parameter integer PE_KIND = 0,
  parameter integer TERMS = 1,
  parameter integer X_W = 9,
  parameter integer WEIGHT_W = 9,
  parameter integer SHIFT_W = 4,
  parameter integer ACC_BITS = 32,
  parameter integer SATURATE = 0,
  parameter integer EVENTS_W = 16,
  parameter integer SPILL = 0,
  parameter integer WIDE_BITS = 32,
  localparam integer CODE_W = PE_KIND == 0 ? WEIGHT_W : PE_KIND == 1 ? TERMS * (2 + SHIFT_W) : 2,
  localparam integer RESULT_W = SPILL > 0 ? WIDE_BITS : ACC_BITS
) (
  input  wire                       clk,
  input  wire                       rst,
  input  wire                       issue,
  input  wire                       step,
  input  wire                       clear,
  input  wire signed [X_W-1:0]      x,
  input  wire        [CODE_W-1:0]   code,
  output wire signed [RESULT_W-1:0] result,
  output wire                       result_overflow,
  output wire        [EVENTS_W-1:0] result_events
);

  localparam integer ADDEND_W =
      PE_KIND == 0 ? X_W + WEIGHT_W :
      PE_KIND == 1 ? X_W + (1 << SHIFT_W) + $clog2(TERMS) : X_W + 1;

`ifndef SYNTHESIS
  initial
    if (PE_KIND < 0 || PE_KIND > 2)
      $fatal(1, "%m: PE_KIND is 0 (mac), 1 (shift_add) or 2 (ternary), not %0d", PE_KIND);
`endif

  logic signed [X_W-1:0]    x_q;
  logic        [CODE_W-1:0] code_q;
  logic                     step_q;
  logic                     clear_q;

  always_ff @(posedge clk) begin
    if (rst) begin
      x_q    <= '0;
      code_q <= '0;
    end else if (issue) begin
      x_q    <= x;
      code_q <= code;
    end
  end

  always_ff @(posedge clk) begin
    if (rst) begin
      step_q  <= 1'b0;
      clear_q <= 1'b0;
    end else begin
      step_q  <= step;
      clear_q <= clear;
    end
  end

  wire signed [ADDEND_W-1:0] addend;
  generate
    if (PE_KIND == 0) begin : g_mac
      pe_mac #(
        .X_W     (X_W),
        .WEIGHT_W(WEIGHT_W)
      ) u_addend (
        .x     (x_q),
        .code  (code_q),
        .addend(addend)
      );
    end else if (PE_KIND == 1) begin : g_shift_add
      pe_shift_add #(
        .X_W    (X_W),
        .TERMS  (TERMS),
        .SHIFT_W(SHIFT_W)
      ) u_addend (
        .x     (x_q),
        .code  (code_q),
        .addend(addend)
      );
    end else begin : g_ternary
      pe_ternary #(
        .X_W(X_W)
      ) u_addend (
        .x     (x_q),
        .code  (code_q),
        .addend(addend)
      );
    end
  endgenerate

  pe_accumulator #(
    .ADDEND_W (ADDEND_W),
    .ACC_BITS (ACC_BITS),
    .SATURATE (SATURATE),
    .EVENTS_W (EVENTS_W),
    .SPILL    (SPILL),
    .WIDE_BITS(WIDE_BITS)
  ) u_accumulator (
    .clk            (clk),
    .rst            (rst),
    .step           (step_q),
    .clear          (clear_q),
    .addend         (addend),
    .result         (result),
    .result_overflow(result_overflow),
    .result_events  (result_events)
  );

endmodule
`default_nettype wire

// A PE that keeps the contract of docs/contracts.md and shares no line with Napier's: wide arithmetic,
// one block for all registers. It has no second accumulator (SPILL = 0).
module napier_pe #(
  parameter PE_KIND = 0,
  parameter TERMS = 1,
  parameter X_W = 9,
  parameter WEIGHT_W = 9,
  parameter SHIFT_W = 4,
  parameter ACC_BITS = 32,
  parameter SATURATE = 0,
  parameter EVENTS_W = 16,
  parameter SPILL = 0,
  parameter WIDE_BITS = 32,
  parameter CODE_W = PE_KIND == 0 ? WEIGHT_W : PE_KIND == 1 ? TERMS * (SHIFT_W + 2) : 2
) (
  input                            clk,
  input                            rst,
  input                            issue,
  input                            step,
  input                            clear,
  input      signed [X_W-1:0]      x,
  input             [CODE_W-1:0]   code,
  output reg signed [ACC_BITS-1:0] result,
  output reg                       result_overflow,
  output reg        [EVENTS_W-1:0] result_events
);

  reg signed [X_W-1:0] x_r;
  reg [CODE_W-1:0] code_r;
  reg step_r, clear_r;
  reg signed [ACC_BITS-1:0] acc;
  reg overflow;
  reg [EVENTS_W-1:0] events;

  wire signed [63:0] wide_x = x_r;
  reg signed [63:0] product;
  reg [SHIFT_W+1:0] term;
  integer t;
  always @* begin
    product = 0;
    term = 0;
    if (PE_KIND == 0)
      product = wide_x * $signed({{(64 - CODE_W) {code_r[CODE_W-1]}}, code_r});
    else if (PE_KIND == 2)
      product = code_r[0] ? (code_r[1] ? -wide_x : wide_x) : 64'sd0;
    else
      for (t = 0; t < TERMS; t = t + 1) begin
        term = code_r >> (t * (SHIFT_W + 2));
        if (term[SHIFT_W+1] && term[SHIFT_W]) product = product - (wide_x <<< term[SHIFT_W-1:0]);
        else if (term[SHIFT_W+1]) product = product + (wide_x <<< term[SHIFT_W-1:0]);
      end
  end

  wire signed [63:0] highest = (64'sd1 <<< (ACC_BITS - 1)) - 64'sd1;
  wire signed [63:0] lowest = -(64'sd1 <<< (ACC_BITS - 1));
  wire signed [63:0] base = clear_r ? 64'sd0 : acc;
  wire signed [63:0] sum = base + product;
  wire event_now = step_r && (sum > highest || sum < lowest);
  wire [EVENTS_W-1:0] count = clear_r ? {EVENTS_W{1'b0}} : events;

  always @(posedge clk)
    if (rst) begin
      x_r <= 0;
      code_r <= 0;
      step_r <= 0;
      clear_r <= 0;
      acc <= 0;
      overflow <= 0;
      events <= 0;
      result <= 0;
      result_overflow <= 0;
      result_events <= 0;
    end else begin
      if (issue) x_r <= x;
      if (issue) code_r <= code;
      step_r <= step;
      clear_r <= clear;
      if (!step_r) acc <= base;
      else if (event_now && SATURATE) acc <= sum > 0 ? highest : lowest;
      else acc <= sum;
      overflow <= (!clear_r && overflow) || event_now;
      if (event_now && count != {EVENTS_W{1'b1}}) events <= count + 1'b1;
      else events <= count;
      if (clear_r) begin
        result <= acc;
        result_overflow <= overflow;
        result_events <= events;
      end
    end
endmodule

`default_nettype none
// What pe_accumulator must equal: rules P2 to P5 in the order of the text, in 64-bit integers.
// The registers have the names of pe_accumulator's, which is how they are matched.
module accumulator_reference #(
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
  localparam integer COUNT_W = SPILL > 0 ? $clog2(SPILL + 1) : 1;

  reg signed [ACC_BITS-1:0] acc_q;
  reg                       overflow_q;
  reg        [EVENTS_W-1:0] events_q;
  reg signed [RESULT_W-1:0] result_q;
  reg                       result_overflow_q;
  reg        [EVENTS_W-1:0] result_events_q;
  wire signed [WIDE_BITS-1:0] wide;
  wire        [COUNT_W-1:0]   count;

  function signed [63:0] highest(input integer bits);
    highest = (64'sd1 <<< (bits - 1)) - 64'sd1;
  endfunction
  function signed [63:0] lowest(input integer bits);
    lowest = -(64'sd1 <<< (bits - 1));
  endfunction
  function leaves(input signed [63:0] value, input integer bits);
    leaves = value > highest(bits) || value < lowest(bits);
  endfunction
  function signed [63:0] fit(input signed [63:0] value, input integer bits);
    // The low bits of what is returned are what is stored, so wrapping needs nothing here.
    if (SATURATE == 1 && value > highest(bits)) fit = highest(bits);
    else if (SATURATE == 1 && value < lowest(bits)) fit = lowest(bits);
    else fit = value;
  endfunction

  reg signed [63:0] acc_n, wide_n, count_n, events_n, sum, result_n, result_events_n;
  reg overflow_n, result_overflow_n;
  always @* begin
    acc_n = acc_q;
    wide_n = wide;
    count_n = count;
    events_n = events_q;
    overflow_n = overflow_q;
    result_n = result_q;
    result_overflow_n = result_overflow_q;
    result_events_n = result_events_q;
    sum = 0;

    if (clear) begin
      sum = SPILL > 0 ? wide_n + acc_n : acc_n;
      result_n = SPILL > 0 ? fit(sum, WIDE_BITS) : sum;
      result_overflow_n = overflow_n;
      result_events_n = events_n;
      if (SPILL > 0 && leaves(sum, WIDE_BITS)) begin
        result_overflow_n = 1;
        result_events_n = events_n + 1;
      end
      acc_n = 0;
      wide_n = 0;
      count_n = 0;
      events_n = 0;
      overflow_n = 0;
    end
    if (step) begin
      if (SPILL > 0 && count_n == SPILL) begin
        sum = wide_n + acc_n;
        if (leaves(sum, WIDE_BITS)) begin
          overflow_n = 1;
          events_n = events_n + 1;
        end
        wide_n = fit(sum, WIDE_BITS);
        acc_n = 0;
        count_n = 0;
      end
      sum = acc_n + addend;
      if (leaves(sum, ACC_BITS)) begin
        overflow_n = 1;
        events_n = events_n + 1;
      end
      acc_n = fit(sum, ACC_BITS);
      count_n = count_n + 1;
    end
    if (events_n >= (64'sd1 <<< EVENTS_W)) events_n = (64'sd1 <<< EVENTS_W) - 1;
    if (result_events_n >= (64'sd1 <<< EVENTS_W)) result_events_n = (64'sd1 <<< EVENTS_W) - 1;

    if (rst) begin
      acc_n = 0;
      wide_n = 0;
      count_n = 0;
      events_n = 0;
      overflow_n = 0;
      result_n = 0;
      result_overflow_n = 0;
      result_events_n = 0;
    end
  end

  always @(posedge clk) begin
    acc_q <= acc_n;
    overflow_q <= overflow_n;
    events_q <= events_n;
    result_q <= result_n;
    result_overflow_q <= result_overflow_n;
    result_events_q <= result_events_n;
  end

  generate
    if (SPILL > 0) begin : g_spill
      reg signed [WIDE_BITS-1:0] wide_q;
      reg        [COUNT_W-1:0]   count_q;
      always @(posedge clk) begin
        wide_q <= wide_n;
        count_q <= count_n;
      end
      assign wide = wide_q;
      assign count = count_q;
    end else begin : g_no_spill
      assign wide = 0;
      assign count = 0;
    end
  endgenerate

  assign result = result_q;
  assign result_overflow = result_overflow_q;
  assign result_events = result_events_q;

endmodule
`default_nettype wire

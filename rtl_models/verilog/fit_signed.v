`default_nettype none
// Bring an exact sum to OUT_W bits.
//
//   overflow = value is outside [-2^(OUT_W-1), 2^(OUT_W-1) - 1]
//   fitted   = value mod 2^OUT_W (SATURATE = 0), or the nearer bound (SATURATE = 1)
//
// Latency: combinational.
//
//   value     in   IN_W    signed, exact
//   fitted    out  OUT_W   signed
//   overflow  out  1
module fit_signed #(
  parameter integer IN_W = 33,
  parameter integer OUT_W = 32,
  parameter integer SATURATE = 0
) (
  input  wire signed [IN_W-1:0]  value,
  output wire signed [OUT_W-1:0] fitted,
  output wire                    overflow
);

`ifndef SYNTHESIS
  initial begin
    if (OUT_W < 2 || IN_W < OUT_W)
      $fatal(1, "%m: need 2 <= OUT_W <= IN_W, not OUT_W = %0d, IN_W = %0d", OUT_W, IN_W);
    if (SATURATE != 0 && SATURATE != 1) $fatal(1, "%m: SATURATE is 0 or 1, not %0d", SATURATE);
  end
`endif

  // The value fits where all bits from OUT_W-1 up are copies of the sign.
  wire negative = value[IN_W-1];
  assign overflow = value[IN_W-1:OUT_W-1] != {(IN_W - OUT_W + 1) {negative}};

  generate
    if (SATURATE != 0) begin : g_saturate
      assign fitted = overflow ? {negative, {(OUT_W - 1) {!negative}}} : value[OUT_W-1:0];
    end else begin : g_wrap
      assign fitted = value[OUT_W-1:0];
    end
  endgenerate

endmodule
`default_nettype wire

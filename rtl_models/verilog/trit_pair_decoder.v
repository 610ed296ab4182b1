`default_nettype none
// Codes of `pe_ternary` from ternary weights stored in two bits each.
//
//   OFFSET = 0   00 = 0, 01 = +1, 11 = -1: two's complement (golden: ternary_twos_complement)
//   OFFSET = 1   00 = -1, 01 = 0, 10 = +1: weight + 1 (golden: ternary_offset)
//
// Latency: combinational.
//
//   stored  in   LANES*2  weight i at [2*i +: 2]
//   codes   out  LANES*2  the same places; {negative, enable} (rule S2)
//   valid   out  1        0: the unused code is among them, and the codes mean nothing
module trit_pair_decoder #(
  parameter integer LANES = 4,
  parameter integer OFFSET = 0
) (
  input  wire [LANES*2-1:0] stored,
  output wire [LANES*2-1:0] codes,
  output wire               valid
);

`ifndef SYNTHESIS
  initial begin
    if (LANES < 1) $fatal(1, "%m: LANES must be at least 1, not %0d", LANES);
    if (OFFSET != 0 && OFFSET != 1) $fatal(1, "%m: OFFSET is 0 or 1, not %0d", OFFSET);
  end
`endif

  localparam [1:0] UNUSED = OFFSET != 0 ? 2'b11 : 2'b10;

  wire [LANES-1:0] unused;

  genvar i;
  generate
    for (i = 0; i < LANES; i = i + 1) begin : g_lane
      wire [1:0] trit = stored[2*i+:2];
      assign unused[i] = trit == UNUSED;
      if (OFFSET != 0) begin : g_offset
        assign codes[2*i+:2] = {!trit[1] && !trit[0], !trit[0]};
      end else begin : g_twos_complement
        assign codes[2*i+:2] = trit;
      end
    end
  endgenerate

  assign valid = unused == '0;

endmodule
`default_nettype wire

`default_nettype none

// One dimension of the input transform of integer Winograd convolution, v = B^T d, combinational.
//
//   F(2,3), form4 = 0:  v0 = d0 - d2, v1 = d1 + d2, v2 = d2 - d1, v3 = d3 - d1
//   F(4,3), form4 = 1:  v0 = 4 d0 - 5 d2 + d4           v1 = -4 d1 - 4 d2 + d3 + d4
//                       v2 =  4 d1 - 4 d2 - d3 + d4     v3 = -2 d1 -   d2 + 2 d3 + d4
//                       v4 =  2 d1 -   d2 - 2 d3 + d4   v5 = 4 d1 - 5 d3 + d5
//
// Results are exact: |v| <= 2 max|d| for F(2,3) and 10 max|d| for F(4,3), so that OUT_W = IN_W + 1
// or IN_W + 4 bits hold them. An input is not used where the form has no such tap.
//
// Source: Lavin and Gray 2016 (arXiv 1509.09308), with the signs of Cook-Toom at 0, 1, -1 (2, -2).
module winograd_1d #(
    parameter integer FORMS = 1,  // 1: F(2,3), 2: F(4,3), 3: both
    parameter integer IN_W  = 9,
    // derived
    parameter integer TAPS  = FORMS > 1 ? 6 : 4,
    parameter integer OUT_W = IN_W + (FORMS > 1 ? 4 : 1)
) (
    input  wire                  form4,
    input  wire [ TAPS*IN_W-1:0] d,
    output wire [TAPS*OUT_W-1:0] v
);
  logic signed [OUT_W-1:0] x[0:TAPS-1];
  logic signed [OUT_W-1:0] y[0:TAPS-1];

  genvar tap;
  generate
    for (tap = 0; tap < TAPS; tap = tap + 1) begin : g_tap
      assign x[tap] = OUT_W'($signed(d[tap*IN_W+:IN_W]));
      assign v[tap*OUT_W+:OUT_W] = y[tap];
    end

    wire signed [OUT_W-1:0] near = x[2] - x[1];
    wire signed [OUT_W-1:0] odd = x[3] - x[1];
    wire signed [OUT_W-1:0] ends = x[0] - x[2];

    if (FORMS == 1) begin : g_f2
      wire unused_form = form4;
      assign y[0] = ends;
      assign y[1] = x[1] + x[2];
      assign y[2] = near;
      assign y[3] = odd;
    end else begin : g_f4
      wire signed [OUT_W-1:0] even = x[4] - x[2];
      wire signed [OUT_W-1:0] sum = x[4] - (x[2] <<< 2);
      wire signed [OUT_W-1:0] difference = x[3] - (x[1] <<< 2);
      wire signed [OUT_W-1:0] twice = odd <<< 1;
      wire both = FORMS == 3;
      assign y[0] = both && !form4 ? ends : even + (ends <<< 2);
      assign y[1] = both && !form4 ? x[1] + x[2] : sum + difference;
      assign y[2] = both && !form4 ? near : sum - difference;
      assign y[3] = both && !form4 ? odd : even + twice;
      assign y[4] = even - twice;
      assign y[5] = x[5] - x[3] - (twice <<< 1);
    end
  endgenerate
endmodule

`default_nettype wire

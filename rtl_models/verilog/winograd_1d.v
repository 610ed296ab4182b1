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
  wire signed [OUT_W-1:0] d0 = OUT_W'($signed(d[0*IN_W+:IN_W]));
  wire signed [OUT_W-1:0] d1 = OUT_W'($signed(d[1*IN_W+:IN_W]));
  wire signed [OUT_W-1:0] d2 = OUT_W'($signed(d[2*IN_W+:IN_W]));
  wire signed [OUT_W-1:0] d3 = OUT_W'($signed(d[3*IN_W+:IN_W]));

  wire signed [OUT_W-1:0] ends = d0 - d2;
  wire signed [OUT_W-1:0] sum = d1 + d2;
  wire signed [OUT_W-1:0] near = d2 - d1;
  wire signed [OUT_W-1:0] odd = d3 - d1;

  generate
    if (FORMS == 1) begin : g_f2
      wire unused_form = form4;
      assign v = {odd, near, sum, ends};
    end else begin : g_f4
      wire signed [OUT_W-1:0] d4 = OUT_W'($signed(d[4*IN_W+:IN_W]));
      wire signed [OUT_W-1:0] d5 = OUT_W'($signed(d[5*IN_W+:IN_W]));
      wire signed [OUT_W-1:0] even = d4 - d2;
      wire signed [OUT_W-1:0] twice = odd <<< 1;
      wire signed [OUT_W-1:0] middle = d4 - (d2 <<< 2);
      wire signed [OUT_W-1:0] skew = d3 - (d1 <<< 2);
      wire signed [OUT_W-1:0] v0 = even + (ends <<< 2);
      wire signed [OUT_W-1:0] v1 = middle + skew;
      wire signed [OUT_W-1:0] v2 = middle - skew;
      wire signed [OUT_W-1:0] v3 = even + twice;
      wire signed [OUT_W-1:0] v4 = even - twice;
      wire signed [OUT_W-1:0] v5 = d5 - d3 - (twice <<< 1);
      wire two = FORMS == 3 && !form4;
      assign v = {v5, v4, two ? {odd, near, sum, ends} : {v3, v2, v1, v0}};
    end
  endgenerate
endmodule

`default_nettype wire

`default_nettype none

// One dimension of the output transform: what a product adds to each output, z_j = A^T[j][tap] * x.
//
//   F(2,3), form4 = 0:  A^T = [2 1 1 0; 0 1 -1 2]
//   F(4,3), form4 = 1:  A^T = [6 4 4 1 1 0; 0 4 -4 2 -2 0; 0 4 4 4 4 0; 0 4 -4 8 -8 24]
//
// These belong to weights transformed by the row-minimal G = [1 0 0; 1 1 1; 1 -1 1; 0 0 1], or
// [1 0 0; -1 -1 -1; -1 1 -1; 1 2 4; 1 -2 4; 0 0 1]: the outputs are 2, or 24, times the convolution.
// Everything is modulo 2^W. Combinational.
module winograd_scale #(
    parameter integer FORMS = 1,  // 1: F(2,3), 2: F(4,3), 3: both
    parameter integer W     = 32,
    // derived
    parameter integer OUTPUTS = FORMS > 1 ? 4 : 2
) (
    input  wire                 form4,
    input  wire [          2:0] tap,
    input  wire [        W-1:0] x,
    output wire [OUTPUTS*W-1:0] z
);
  wire [W-1:0] zero = '0;
  wire [W-1:0] minus = zero - x;
  logic [OUTPUTS*W-1:0] two, four;  // of the two forms

  assign z = FORMS > 1 && form4 ? four : two;

  always_comb begin
    two = '0;
    case (tap)
      3'd0: two[W-1:0] = x << 1;
      3'd1: two[2*W-1:0] = {x, x};
      3'd2: two[2*W-1:0] = {minus, x};
      3'd3: two[2*W-1:W] = x << 1;
      default: two = '0;
    endcase
  end

  generate
    if (FORMS > 1) begin : g_four
      wire [W-1:0] thrice = x + (x << 1);
      wire [W-1:0] x2 = x << 1;
      wire [W-1:0] x4 = x << 2;
      wire [W-1:0] x8 = x << 3;
      always_comb begin
        case (tap)
          3'd0: four = {zero, zero, zero, thrice << 1};
          3'd1: four = {x4, x4, x4, x4};
          3'd2: four = {minus << 2, x4, minus << 2, x4};
          3'd3: four = {x8, x4, x2, x};
          3'd4: four = {minus << 3, x4, minus << 1, x};
          3'd5: four = {thrice << 3, zero, zero, zero};
          default: four = '0;
        endcase
      end
    end else begin : g_two
      wire unused_form = form4;
      assign four = '0;
    end
  endgenerate
endmodule

`default_nettype wire

`default_nettype none
// What pe_shift_add must equal: the operand times the sum of signed powers, with a multiplier;
// sign and size apart, as by hand, which also makes the proof half as long.
module shift_add_reference #(
  parameter integer X_W = 9,
  parameter integer TERMS = 1,
  parameter integer SHIFT_W = 4
) (
  input  wire signed [X_W-1:0]                            x,
  input  wire        [TERMS*(2+SHIFT_W)-1:0]              code,
  output wire signed [X_W+(1<<SHIFT_W)+$clog2(TERMS)-1:0] addend
);

  localparam integer TERM_W = 2 + SHIFT_W;
  localparam integer WEIGHT_W = (1 << SHIFT_W) + $clog2(TERMS) + 1;

  reg signed [WEIGHT_W-1:0] weight;
  integer t;
  always @* begin
    weight = 0;
    for (t = 0; t < TERMS; t = t + 1)
      if (code[t*TERM_W+SHIFT_W+1]) begin
        if (code[t*TERM_W+SHIFT_W]) weight = weight - (1 << code[t*TERM_W+:SHIFT_W]);
        else weight = weight + (1 << code[t*TERM_W+:SHIFT_W]);
      end
  end

  wire [X_W-1:0] size_x = x < 0 ? -x : x;
  wire [WEIGHT_W-1:0] size_weight = weight < 0 ? -weight : weight;
  wire [X_W+(1<<SHIFT_W)+$clog2(TERMS)-1:0] size = size_weight * size_x;
  assign addend = (x < 0) != (weight < 0) ? -size : size;

endmodule
`default_nettype wire

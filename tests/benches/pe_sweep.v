`default_nettype none
// Every operand with every code through a PE, one a cycle; each clears, so that acc holds one addend.
// The contents of acc go to sweep.txt, operand fastest; `finished` tells the end.
module pe_sweep #(
  parameter integer PE_KIND = 0,
  parameter integer TERMS = 1,
  parameter integer X_W = 9,
  parameter integer WEIGHT_W = 9
) (
  input  wire  clk,
  input  wire  rst,
  output logic finished
);

  localparam integer CODE_W = PE_KIND == 0 ? WEIGHT_W : PE_KIND == 1 ? TERMS * 6 : 2;
  localparam integer INDEX_W = X_W + CODE_W + 1;

  logic [INDEX_W-1:0] index;
  wire valid = !index[INDEX_W-1];
  logic [1:0] valid_q;

  napier_pe #(
    .PE_KIND (PE_KIND),
    .TERMS   (TERMS),
    .X_W     (X_W),
    .WEIGHT_W(WEIGHT_W)
  ) u_pe (
    .clk            (clk),
    .rst            (rst),
    .issue          (valid),
    .step           (valid),
    .clear          (valid),
    .x              (index[X_W-1:0]),
    .code           (index[X_W+:CODE_W]),
    .result         (),
    .result_overflow(),
    .result_events  ()
  );

  integer file;
  initial file = $fopen("sweep.txt", "w");

  always @(posedge clk) begin
    if (rst) begin
      index    <= '0;
      valid_q  <= '0;
      finished <= 1'b0;
    end else begin
      valid_q <= {valid_q[0], valid};
      if (valid) index <= index + 1'b1;
      if (valid_q[1]) $fwrite(file, "%0d\n", u_pe.u_accumulator.acc_q);
      if (!finished && !valid && valid_q == 0) begin
        $fclose(file);
        finished <= 1'b1;
      end
    end
  end

endmodule
`default_nettype wire

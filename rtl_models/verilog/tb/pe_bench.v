`default_nettype none
// A PE between files, whoever wrote it; simulation only.
//
//   stimulus.hex   one line a cycle: {issue, step, clear, x, code}
//   results.txt    one line a cycle: result, result_overflow, result_events before the cycle's edge
//   waves.fst      with +waves, from vvp -fst
//
// +cycles=K ends after K cycles.
module pe_bench #(
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
  parameter integer CYCLES = 1
);

  localparam integer CODE_W = PE_KIND == 0 ? WEIGHT_W : PE_KIND == 1 ? TERMS * (2 + SHIFT_W) : 2;
  localparam integer RESULT_W = SPILL > 0 ? WIDE_BITS : ACC_BITS;

  reg                        clk = 1'b0;
  reg                        rst = 1'b1;
  reg                        issue = 1'b0;
  reg                        step = 1'b0;
  reg                        clear = 1'b0;
  reg  signed [X_W-1:0]      x = 0;
  reg         [CODE_W-1:0]   code = 0;
  wire signed [RESULT_W-1:0] result;
  wire                       result_overflow;
  wire        [EVENTS_W-1:0] result_events;

  napier_pe #(
    .PE_KIND  (PE_KIND),
    .TERMS    (TERMS),
    .X_W      (X_W),
    .WEIGHT_W (WEIGHT_W),
    .SHIFT_W  (SHIFT_W),
    .ACC_BITS (ACC_BITS),
    .SATURATE (SATURATE),
    .EVENTS_W (EVENTS_W),
    .SPILL    (SPILL),
    .WIDE_BITS(WIDE_BITS)
  ) u_pe (
    .clk            (clk),
    .rst            (rst),
    .issue          (issue),
    .step           (step),
    .clear          (clear),
    .x              (x),
    .code           (code),
    .result         (result),
    .result_overflow(result_overflow),
    .result_events  (result_events)
  );

  always #5 clk = !clk;

  reg [2+X_W+CODE_W:0] memory[0:CYCLES-1];
  integer file, cycle, cycles;

  initial begin
    $readmemh("stimulus.hex", memory);
    file = $fopen("results.txt", "w");
    cycles = CYCLES;
    if ($value$plusargs("cycles=%d", cycles)) cycles = cycles < CYCLES ? cycles : CYCLES;
    if ($test$plusargs("waves")) begin
      $dumpfile("waves.fst");
      $dumpvars(0, pe_bench);
    end
    repeat (2) @(negedge clk);
    rst = 1'b0;
    for (cycle = 0; cycle < cycles; cycle = cycle + 1) begin
      {issue, step, clear, x, code} = memory[cycle];
      #1;
      $fwrite(file, "%b %b %b\n", result, result_overflow, result_events);
      @(negedge clk);
    end
    $fclose(file);
    $finish;
  end

endmodule
`default_nettype wire

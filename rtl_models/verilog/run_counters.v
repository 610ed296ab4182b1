`default_nettype none

// Counts the cycles of a run by cause (rule E5).
//
//   fill        `filling`
//   compute     otherwise, if something issues
//   drain       otherwise, if the tile or the run has ended
//   stall_feed  otherwise
//
// A cycle counts while `busy`, and is seen in the next one; cycles is their sum. Synchronous reset
// and `flush`: zero.
module run_counters (
    input wire clk,
    input wire rst,
    input wire flush,

    // what the cycle is
    input wire busy,
    input wire filling,
    input wire issue_any,
    input wire ended,

    output wire [31:0] cycles,
    output wire [31:0] compute_cycles,
    output wire [31:0] fill_cycles,
    output wire [31:0] stall_feed_cycles,
    output wire [31:0] drain_cycles
);
  logic [31:0] compute_q, fill_q, stall_feed_q, drain_q;

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      compute_q    <= '0;
      fill_q       <= '0;
      stall_feed_q <= '0;
      drain_q      <= '0;
    end else if (busy) begin
      if (filling) fill_q <= fill_q + 1'b1;
      else if (issue_any) compute_q <= compute_q + 1'b1;
      else if (ended) drain_q <= drain_q + 1'b1;
      else stall_feed_q <= stall_feed_q + 1'b1;
    end
  end

  assign compute_cycles    = compute_q;
  assign fill_cycles       = fill_q;
  assign stall_feed_cycles = stall_feed_q;
  assign drain_cycles      = drain_q;
  assign cycles            = compute_q + fill_q + stall_feed_q + drain_q;
endmodule

`default_nettype wire

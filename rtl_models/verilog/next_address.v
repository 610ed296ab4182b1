`default_nettype none

// Address after `addr` in a memory whose beats hold PLACES words each: {beat, place}.
//
//   after {beat, PLACES - 1} comes {beat + 1, 0}, otherwise addr + 1
//
// PLACES 0 or 1: plain counting. Combinational.
//
// model: section 2 of docs/programming.md.
module next_address #(
    parameter integer ADDR_W = 10,
    parameter integer PLACES = 0
) (
    input  wire [ADDR_W-1:0] addr,
    output wire [ADDR_W-1:0] following
);
  localparam integer PLACE_W = PLACES > 1 ? $clog2(PLACES) : 0;

  initial begin
    if (PLACE_W > ADDR_W) $fatal(1, "PLACES=%0d exceed ADDR_W=%0d bits", PLACES, ADDR_W);
  end

  generate
    if (PLACES <= 1 || PLACES == 1 << PLACE_W) begin : g_plain
      assign following = addr + 1'b1;
    end else begin : g_mixed
      localparam integer SKIPPED = (1 << PLACE_W) - PLACES;  // places that no beat has
      wire beat_end = addr[PLACE_W-1:0] == PLACE_W'(PLACES - 1);
      assign following = addr + (beat_end ? ADDR_W'(SKIPPED + 1) : ADDR_W'(1));
    end
  endgenerate
endmodule

`default_nettype wire

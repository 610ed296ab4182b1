`default_nettype none

// Reads one column's entry stream from its memory: the memory's output register is the stream.
//
// `begin_run` reads the first entry; a column that issues (valid and ready) reads its next entry in
// the same cycle. After a tile's last entry the tile's entries start again, after the last pixel
// tile the next channel tile's follow, and after the last tile nothing does (rules E2, S5). A tile
// of several parts has a `last` entry for each; they follow each other (rule W4).
// The memory holds its output while `read` is low. Reset and `flush` end the stream.
//
// model: simulator.stepped; rule E2.
module stream_reader #(
    parameter integer ADDR_W = 10,  // stream memory address
    parameter integer PLACES = 0    // entries in a beat of it, see next_address
) (
    input wire clk,
    input wire rst,
    input wire flush,

    // configuration: address of the first entry
    input wire [ADDR_W-1:0] cfg_base,

    // control: first read; the part being computed is the tile's last, the tile is the last pixel
    // tile of its channel tile, the part is the last of the run
    input wire begin_run,
    input wire part_last,
    input wire pixel_last,
    input wire run_last,

    // stream memory; `last` is the `last` bit of its output
    output wire              read,
    output wire [ADDR_W-1:0] addr,
    input  wire              last,

    // entry stream
    output wire entry_valid,
    input  wire entry_ready
);
  logic valid_q;
  logic [ADDR_W-1:0] addr_q;   // of the entry in the output register
  logic [ADDR_W-1:0] first_q;  // of the tile's first entry

  wire issue = valid_q && entry_ready;
  wire tile_last = last && part_last;
  wire [ADDR_W-1:0] following;

  next_address #(
      .ADDR_W(ADDR_W),
      .PLACES(PLACES)
  ) u_next (
      .addr     (addr_q),
      .following(following)
  );

  assign entry_valid = valid_q;
  assign read = begin_run || issue && !(last && run_last);
  assign addr = begin_run ? cfg_base : tile_last && !pixel_last ? first_q : following;

  always_ff @(posedge clk) begin
    if (rst || flush) valid_q <= 1'b0;
    else if (read || issue) valid_q <= read;
    if (read) addr_q <= addr;
    if (begin_run) first_q <= cfg_base;
    else if (issue && tile_last && pixel_last) first_q <= following;
  end
endmodule

`default_nettype wire

`default_nettype none

// Cuts the words of a pixel into chunks of cfg_chunk_words, the last one shorter, tile after tile.
//
// `length` is that of the current chunk; `advance` goes to the next one, after the last chunk of a
// tile to the first of the next tile. `flush` goes to the first chunk and wins.
//
// model: simulator.stepped; rule W2.
module chunk_counter #(
    parameter integer WORDS_W = 10,
    parameter integer CHUNK_W = 6
) (
    input wire clk,
    input wire flush,

    // configuration: words of a pixel and of a chunk, at least 1 each
    input wire [WORDS_W-1:0] cfg_words,
    input wire [CHUNK_W-1:0] cfg_chunk_words,

    input  wire               advance,
    output wire [CHUNK_W-1:0] length
);
  logic [WORDS_W-1:0] left_q;
  wire last = left_q <= WORDS_W'(cfg_chunk_words);

  assign length = last ? CHUNK_W'(left_q) : cfg_chunk_words;

  always_ff @(posedge clk) begin
    if (flush) left_q <= cfg_words;
    else if (advance) left_q <= last ? cfg_words : left_q - WORDS_W'(cfg_chunk_words);
  end
endmodule

`default_nettype wire

`default_nettype none

// Collects a descriptor's beats, says what is wrong with it, and holds that of the pass that runs.
//
// `loading` is the descriptor that came last; beat i is in it from the cycle after it was written.
// `take` copies it to `running`, but for the words of transfers that come before the run (0 there).
// Word n, as section 3 of docs/programming.md numbers them, is at [n*32 +: 32] of either.
// `error` tells what is wrong with `loading`, start coordinates aside. The last beat holds nothing
// else, so it is right from the cycle in which that is written.
// No reset: before the first descriptor the words are of no meaning.
//
//   error
//   0  nothing is wrong
//   3  wrong magic
//   4  compiled for another machine
//   5  a field that makes no sense; `new_layer`: the pass is the first of its layer
module descriptor #(
    parameter integer ROWS          = 4,
    parameter integer COLS          = 4,
    parameter integer FEED          = 1,
    parameter integer LANES         = 1,
    parameter integer CODE_W        = 8,
    parameter integer VECTOR        = 1,   // whether the engine has a vector unit
    parameter integer WINOGRAD      = 0,   // forms that the engine has, see layer_engine
    parameter integer CHUNK_WORDS   = 64,
    parameter integer DATA_W        = 64,
    parameter integer COORD_W       = 20,
    parameter integer FEED_ADDR_W   = 10,
    parameter integer STREAM_ADDR_W = 10,
    parameter integer CHANNEL_W     = 10,
    parameter integer ACT_WORDS     = 64,  // of a bank
    parameter integer OUT_WORDS     = 64,  // of a bank
    parameter integer LAYERS        = 64,
    parameter [31:0] MACHINE_ID     = 0,
    // derived
    parameter integer WORDS         = 64 + ROWS,
    parameter integer BEATS         = 32 * ((WORDS + 31) / 32) / (DATA_W / 32),
    parameter integer INDEX_W       = $clog2(BEATS)
) (
    input wire clk,

    // beats
    input wire               desc_write,
    input wire [INDEX_W-1:0] desc_index,
    input wire [ DATA_W-1:0] desc_data,

    // control
    input  wire       new_layer,
    output wire [2:0] error,
    input  wire       take,

    // words
    output wire [WORDS*32-1:0] loading,
    output wire [WORDS*32-1:0] running
);
  localparam [31:0] MAGIC = 32'h4E41_5031;
  localparam integer BEAT_WORDS = DATA_W / 32;
  localparam integer RESULTS = COLS * (ROWS / LANES);  // of a channel tile at most
  localparam integer VECTOR_RESULTS = FEED * (ROWS / LANES);
  localparam [2:0] LAST_MODE = VECTOR != 0 ? 3'd4 : 3'd0;
  localparam [31:0] WORD_PART = FEED * CODE_W / 8 - 1;  // byte within a word
  localparam [31:0] BLOCK_PART = 32'd4095;  // byte within 4096

  initial begin
    if (DATA_W < 32 || DATA_W > 1024) $fatal(1, "DATA_W=%0d must be 32 to 1024", DATA_W);
  end

  wire [31:0] word[0:63];

  genvar w;
  generate
    for (w = 0; w < WORDS; w = w + 1) begin : g_word
      localparam [0:0] BEFORE_RUN = w == 0 || w == 1 || w >= 33 && w <= 51;
      logic [31:0] loading_q;

      assign loading[w*32+:32] = loading_q;

      always_ff @(posedge clk) begin
        if (desc_write && desc_index == INDEX_W'(w / BEAT_WORDS)) begin
          loading_q <= desc_data[w%BEAT_WORDS*32+:32];
        end
      end

      if (w < 64) begin : g_named
        assign word[w] = loading_q;
      end

      if (BEFORE_RUN) begin : g_before
        assign running[w*32+:32] = '0;
      end else begin : g_running
        logic [31:0] running_q;

        assign running[w*32+:32] = running_q;

        always_ff @(posedge clk) if (take) running_q <= loading_q;
      end
    end
  endgenerate

  // Whether a value is one of 1 .. last
  function automatic counts(input [31:0] value, input [31:0] last);
    counts = value != '0 && value <= last;
  endfunction

  // Whether a two's complement value fits `width` bits
  function automatic fits(input [31:0] value, input integer width);
    fits = &(value | ~({32{1'b1}} << (width - 1))) || ~|(value >> (width - 1));
  endfunction

  // Word 2
  wire [1:0] order = word[2][1:0];
  wire layer_end = word[2][2];
  wire program_end = word[2][3];
  wire drains = word[2][4];
  wire [2:0] rounding = word[2][9:7];
  wire [2:0] mode = word[2][12:10];
  wire [1:0] winograd = word[2][14:13];
  wire flags_fit = word[2] >> 15 == '0 && order <= 2'd2 && rounding <= 3'd4 && mode <= LAST_MODE &&
      (order != 2'd0 || !new_layer) && (layer_end || !program_end) && (drains || !layer_end);

  // The run: tiles, memories, image, codes
  wire [31:0] pixel_tiles = {16'd0, word[4][15:0]};
  wire [31:0] channel_tiles = {16'd0, word[4][31:16]};
  wire [31:0] most_tiles = drains ? 32'h0000_FFFF : 32'd1;  // E4
  wire [31:0] most_results = mode == 3'd0 ? RESULTS : VECTOR_RESULTS;
  wire tiles_fit = counts(pixel_tiles, most_tiles) && counts(channel_tiles, most_tiles);
  wire results_fit = !drains ||
      counts({16'd0, word[5][15:0]}, most_results) && counts({16'd0, word[5][31:16]}, most_results);
  wire memories_fit = word[3] < LAYERS && word[6] >> FEED_ADDR_W == '0 &&
      word[7] >> STREAM_ADDR_W == '0 && word[8] >> CHANNEL_W == '0 &&
      counts(word[12], ACT_WORDS) && (!drains || counts(word[13], OUT_WORDS));

  logic image_fits, codes_fit;

  always_comb begin
    image_fits = 1'b1;
    for (int i = 14; i <= 22; i++) image_fits = image_fits && fits(word[i], COORD_W);
    codes_fit = fits(word[27], CODE_W + 2) && word[28] >> 5 == '0 &&
        fits(word[30], 8) && fits(word[32], 8);
    for (int i = 23; i <= 26; i++) codes_fit = codes_fit && fits(word[i], CODE_W + 1);
  end

  // Chunks of a Winograd pass: as many as hold in_words words
  wire [31:0] chunk_words = {16'd0, word[63][15:0]};
  wire [31:0] chunks = {16'd0, word[63][31:16]};
  wire [31:0] most_words = winograd == 2'd1 ? CHUNK_WORDS / 16 : CHUNK_WORDS / 36;
  wire [31:0] whole_words = (chunks - 32'd1) * chunk_words;
  wire form_fits = WINOGRAD[0] && winograd == 2'd1 || WINOGRAD[1] && winograd == 2'd2;
  wire winograd_fits = winograd == 2'd0 ? word[63] == '0 :
      form_fits && drains && mode == 3'd0 && counts(chunk_words, most_words) && chunks != '0 &&
      whole_words < word[12] && word[12] - whole_words <= chunk_words;

  // Transfers
  wire loads_weights = word[34] != '0;
  wire loads = word[39] != '0;
  wire stores = word[53] != '0;
  wire weights_fit = !loads_weights || (word[33] & BLOCK_PART) == '0;
  wire [7:0] stride_x = word[45][7:0];
  wire [7:0] stride_y = word[45][15:8];
  wire load_fits = !loads ||
      (word[38] & WORD_PART) == '0 && (word[41] & WORD_PART) == '0 &&
      (word[49] & WORD_PART) == '0 &&
      word[40] != '0 && word[43] != '0 && word[44] != '0 && stride_x != '0 && stride_y != '0 &&
      {16'd0, word[45][31:16]} < ROWS && {16'd0, word[47][15:0]} < ROWS &&
      word[47][31:16] < {8'd0, stride_y};
  wire store_fits = !stores ||
      drains && (word[52] & WORD_PART) == '0 && (word[55] & WORD_PART) == '0 &&
      word[54] != '0 && word[58] != '0 && word[59] != '0 && word[57] < ROWS && word[60] < ROWS &&
      word[62] >> 16 == '0 && {24'd0, word[62][7:0]} < FEED && {24'd0, word[62][15:8]} < FEED;
  wire reserved_fit = word[51] == '0;

  wire sensible = flags_fit && tiles_fit && results_fit && memories_fit && image_fits &&
      codes_fit && weights_fit && load_fits && store_fits && winograd_fits && reserved_fit;
  assign error = word[0] != MAGIC ? 3'd3 : word[1] != MACHINE_ID ? 3'd4 : sensible ? 3'd0 : 3'd5;
endmodule

`default_nettype wire

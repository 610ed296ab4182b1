`default_nettype none

// Winograd input transform: takes the n x n words of patches, gives the words of V = B^T d B.
//
// A patch (n = 4 for F(2,3), 6 for F(4,3)) is the words that ROWS neighbouring output tiles read of
// FEED input channels, in the order (row, column). Patches come chunk by chunk (chunk_counter).
// A chunk goes out in the order (tap row, tap column, word) when all of it is in: two halves of a
// memory take turns, so that the array works on one chunk while the next one is transformed.
//
//   acceptance   a word a cycle; the first word of a chunk waits until the chunk two before it has
//                been read out
//   first read   of a chunk whose last word was accepted in cycle t: cycle t + n*n + 2*n + 2
//
// X_W + 2 bits hold V of F(2,3), X_W + 7 bits that of F(4,3): exact. Synchronous reset or flush
// empties it; the configuration is stable from the flush on.
//
// model: simulator.stepped; rules W1 to W3.
module input_transform #(
    parameter integer FORMS   = 1,   // 1: F(2,3), 2: F(4,3), 3: both
    parameter integer LANES   = 4,   // operands of a word, ROWS * FEED
    parameter integer X_W     = 9,
    parameter integer HALF    = 64,  // words of a half
    parameter integer WORDS_W = 10,
    // derived
    parameter integer CHUNK_W = $clog2(HALF / 16 + 1),
    parameter integer V_W     = X_W + (FORMS > 1 ? 7 : 2)
) (
    input wire clk,
    input wire rst,
    input wire flush,

    // configuration; n * n * cfg_chunk_words is at most HALF
    input wire               cfg_form4,
    input wire [WORDS_W-1:0] cfg_words,
    input wire [CHUNK_W-1:0] cfg_chunk_words,

    // patches
    input  wire                 in_valid,
    output wire                 in_ready,
    input  wire [LANES*X_W-1:0] in_data,

    // transformed words
    output wire                 out_valid,
    input  wire                 out_ready,
    output wire [LANES*V_W-1:0] out_data
);
  localparam integer HALF_W = $clog2(HALF);
  localparam integer ADDR_W = $clog2(2 * HALF);

  wire form4 = FORMS == 2 || FORMS == 3 && cfg_form4;

  // n * n, and n, times a length
  function automatic [HALF_W:0] times_patch(input [CHUNK_W-1:0] length, input four);
    times_patch = four ? ((HALF_W + 1)'(length) << 5) + ((HALF_W + 1)'(length) << 2) :
                         (HALF_W + 1)'(length) << 4;
  endfunction

  function automatic [HALF_W-1:0] times_taps(input [CHUNK_W-1:0] length, input four);
    times_taps = (HALF_W'(length) << 2) + (four ? HALF_W'(length) << 1 : '0);
  endfunction

  // Acceptance: at most two chunks have begun and are not read out.
  logic [CHUNK_W-1:0] in_word_q;
  logic inside_q;  // the chunk has begun
  logic [1:0] chunks_q;
  wire [CHUNK_W-1:0] in_length;
  wire accept = in_valid && in_ready;
  wire in_end;
  wire chunk_in = in_end && in_word_q == in_length - 1'b1;
  wire chunk_read;

  assign in_ready = inside_q || !chunks_q[1];

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      inside_q  <= 1'b0;
      chunks_q  <= '0;
      in_word_q <= '0;
    end else begin
      chunks_q <= chunks_q + 2'(accept && !inside_q) - 2'(chunk_read);
      if (accept) inside_q <= !chunk_in;
      if (accept && in_end) in_word_q <= chunk_in ? '0 : in_word_q + 1'b1;
    end
  end

  chunk_counter #(
      .WORDS_W(WORDS_W),
      .CHUNK_W(CHUNK_W)
  ) u_in_chunk (
      .clk            (clk),
      .flush          (flush),
      .cfg_words      (cfg_words),
      .cfg_chunk_words(cfg_chunk_words),
      .advance        (accept && chunk_in),
      .length         (in_length)
  );

  wire v_valid, v_column, v_end;
  wire [LANES*V_W-1:0] v_data;

  patch_transform #(
      .FORMS(FORMS),
      .LANES(LANES),
      .X_W  (X_W)
  ) u_patch (
      .clk       (clk),
      .rst       (rst),
      .flush     (flush),
      .form4     (form4),
      .in_valid  (accept),
      .in_end    (in_end),
      .in_data   (in_data),
      .out_valid (v_valid),
      .out_column(v_column),
      .out_end   (v_end),
      .out_data  (v_data)
  );

  // Into a half: tap (k, l) of word w goes to (k * n + l) * length + w.
  logic store_half_q;
  logic [HALF_W-1:0] store_addr_q, store_column_q;  // of this word, of the column's first one
  logic [CHUNK_W-1:0] store_word_q;
  wire [CHUNK_W-1:0] store_length;
  wire chunk_stored = v_end && store_word_q == store_length - 1'b1;
  wire [CHUNK_W-1:0] next_word = chunk_stored ? '0 : store_word_q + 1'b1;
  wire [HALF_W-1:0] next_column = v_end ? HALF_W'(next_word) :
                                          store_column_q + HALF_W'(store_length);

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      store_half_q   <= 1'b0;
      store_word_q   <= '0;
      store_addr_q   <= '0;
      store_column_q <= '0;
    end else begin
      if (v_valid) store_addr_q <= store_addr_q + times_taps(store_length, form4);
      if (v_column) begin
        store_addr_q   <= next_column;
        store_column_q <= next_column;
      end
      if (v_end) store_word_q <= next_word;
      if (chunk_stored) store_half_q <= !store_half_q;
    end
  end

  chunk_counter #(
      .WORDS_W(WORDS_W),
      .CHUNK_W(CHUNK_W)
  ) u_store_chunk (
      .clk            (clk),
      .flush          (flush),
      .cfg_words      (cfg_words),
      .cfg_chunk_words(cfg_chunk_words),
      .advance        (chunk_stored),
      .length         (store_length)
  );

  // Out again, in the order of the addresses
  logic [1:0] stored_q;  // chunks
  logic out_valid_q, out_half_q;
  logic [HALF_W:0] out_addr_q;
  wire [CHUNK_W-1:0] out_length;
  wire read = stored_q != '0 && (!out_valid_q || out_ready);

  assign chunk_read = read && out_addr_q == times_patch(out_length, form4) - 1'b1;
  assign out_valid  = out_valid_q;

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      stored_q    <= '0;
      out_valid_q <= 1'b0;
      out_half_q  <= 1'b0;
      out_addr_q  <= '0;
    end else begin
      stored_q <= stored_q + 2'(chunk_stored) - 2'(chunk_read);
      if (read || out_ready) out_valid_q <= read;
      if (read) out_addr_q <= chunk_read ? '0 : out_addr_q + 1'b1;
      if (chunk_read) out_half_q <= !out_half_q;
    end
  end

  chunk_counter #(
      .WORDS_W(WORDS_W),
      .CHUNK_W(CHUNK_W)
  ) u_out_chunk (
      .clk            (clk),
      .flush          (flush),
      .cfg_words      (cfg_words),
      .cfg_chunk_words(cfg_chunk_words),
      .advance        (chunk_read),
      .length         (out_length)
  );

  bank_memory #(
      .WORDS (2 * HALF),
      .LANES (1),
      .LANE_W(LANES * V_W)
  ) u_halves (
      .clk        (clk),
      .write      (v_valid),
      .write_lanes(1'b1),
      .write_addr ((store_half_q ? ADDR_W'(HALF) : '0) + ADDR_W'(store_addr_q)),
      .write_data (v_data),
      .read       (read),
      .read_addr  ((out_half_q ? ADDR_W'(HALF) : '0) + ADDR_W'(out_addr_q)),
      .word       (out_data)
  );
endmodule

`default_nettype wire

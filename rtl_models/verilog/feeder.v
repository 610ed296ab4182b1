`default_nettype none

// Walks the feed words of all tiles and turns each into ROWS x FEED operands for the window.
//
// Stage 1 is the feed memory's output register, stage 2 the output registers of the activation
// banks with the rotation and row mask that belong to them. The pipeline moves unless stage 2 holds
// a word that the window does not take (rules F1, F2). From `begin_run` a word takes 1 cycle to
// stage 1 and 1 to stage 2; then one word a cycle.
//
//   bank b reads     tile_base + addr + (b < rot ? cfg_in_words : 0)                        (F3)
//   row r is fed     code of bank (r + rot) mod ROWS, minus cfg_zero_point                  (F3)
//                    where its pixel exists and its tap lies in the image, otherwise 0      (F4)
//
// Feed word, most significant bit first: {last, addr[ACT_ADDR_W:0], rot, dy, dx}; addresses are
// computed modulo 2^ACT_ADDR_W, since masked taps may lie outside. Reset and `flush` empty it.
//
//   port           meaning
//   feed_read      feed memory: read enable, feed_addr its address, feed_word its output
//   act_read       all activation banks: read enable; act_addr bank b at [b*ACT_ADDR_W]
//   act_code       outputs of the banks: lane f of bank b at [(b*FEED+f)*CODE_W]
//   data           operands: lane f of row r at [(r*FEED+f)*(CODE_W+1)]
//   mask           bit r: row r is fed codes, not zeros (F4); last: the word is the last of its tile
//
// model: simulator.stepped; rules F1 to F5.
module feeder #(
    parameter integer ROWS        = 4,
    parameter integer FEED        = 1,
    parameter integer CODE_W      = 8,   // activation codes
    parameter integer FEED_ADDR_W = 10,  // feed memory address
    parameter integer FEED_PLACES = 0,   // words in a beat of it, see next_address
    parameter integer ACT_ADDR_W  = 10,  // activation bank address
    parameter integer TAP_W       = 8,   // dy, dx
    parameter integer COORD_W     = 20,  // image coordinates, signed
    parameter integer TILE_W      = 16,  // tile counts
    // derived
    parameter integer ROT_W       = ROWS > 1 ? $clog2(ROWS) : 1,
    parameter integer WORD_W      = 2 + ACT_ADDR_W + ROT_W + 2 * TAP_W
) (
    input wire clk,
    input wire rst,
    input wire flush,

    // configuration, see layer_engine and pixel_walker
    input wire        [     TILE_W-1:0] cfg_pixel_tiles,
    input wire        [     TILE_W-1:0] cfg_channel_tiles,
    input wire        [FEED_ADDR_W-1:0] cfg_feed_base,
    input wire        [ ACT_ADDR_W-1:0] cfg_activation_base,
    input wire        [ ACT_ADDR_W-1:0] cfg_in_words,
    input wire signed [       CODE_W:0] cfg_zero_point,
    input wire                          cfg_signed,
    input wire signed [    COORD_W-1:0] cfg_height,
    input wire signed [    COORD_W-1:0] cfg_width,

    // row coordinates of the tile of stage 1, and their steps
    input  wire [ROWS*COORD_W-1:0] pixel_y,
    input  wire [ROWS*COORD_W-1:0] pixel_x,
    input  wire [        ROWS-1:0] pixel_exists,
    output wire                    pixel_load,
    output wire                    pixel_advance,

    // control: first read
    input wire begin_run,

    // feed memory
    output wire                   feed_read,
    output wire [FEED_ADDR_W-1:0] feed_addr,
    input  wire [     WORD_W-1:0] feed_word,

    // activation banks
    output wire                        act_read,
    output wire [ ROWS*ACT_ADDR_W-1:0] act_addr,
    input  wire [ROWS*FEED*CODE_W-1:0] act_code,

    // operands for the window or the vector unit
    output wire                            valid,
    input  wire                            ready,
    output wire [ROWS*FEED*(CODE_W+1)-1:0] data,
    output wire [                ROWS-1:0] mask,
    output wire                            last
);
  localparam integer BANK_W = FEED * CODE_W;

  // Feed word
  wire word_last;
  wire word_sign;  // sign of addr: of no use modulo 2^ACT_ADDR_W
  wire [ACT_ADDR_W-1:0] word_addr;
  wire [ROT_W-1:0] word_rot;
  wire [TAP_W-1:0] word_dy, word_dx;
  assign {word_last, word_sign, word_addr, word_rot, word_dy, word_dx} = feed_word;
  wire unused_sign = word_sign;

  // Pipeline control
  logic f1_valid_q, f2_valid_q;
  wire moves = !f2_valid_q || ready;
  wire tile_end = f1_valid_q && word_last;
  wire pixel_last, channel_last;
  wire run_end = tile_end && pixel_last && channel_last;

  assign feed_read = begin_run || moves && f1_valid_q && !run_end;
  assign act_read  = moves && f1_valid_q;
  assign valid     = f2_valid_q;

  always_ff @(posedge clk) begin
    if (rst || flush) begin
      f1_valid_q <= 1'b0;
      f2_valid_q <= 1'b0;
    end else begin
      if (moves) begin
        f1_valid_q <= feed_read;
        f2_valid_q <= f1_valid_q;
      end
    end
  end

  // Position of stage 1: feed memory address, tile, image coordinates, bank address of the tile
  logic [FEED_ADDR_W-1:0] feed_addr_q;
  logic [FEED_ADDR_W-1:0] first_q;  // of the tile's first word
  logic [ACT_ADDR_W-1:0] tile_base_q;
  wire [FEED_ADDR_W-1:0] following;
  wire tile_step = moves && tile_end;

  next_address #(
      .ADDR_W(FEED_ADDR_W),
      .PLACES(FEED_PLACES)
  ) u_next (
      .addr     (feed_addr_q),
      .following(following)
  );

  assign feed_addr = begin_run ? cfg_feed_base : tile_end && !pixel_last ? first_q : following;
  assign pixel_load = begin_run || tile_step && pixel_last;
  assign pixel_advance = tile_step;

  tile_counter #(
      .TILE_W(TILE_W)
  ) u_tile (
      .clk              (clk),
      .cfg_pixel_tiles  (cfg_pixel_tiles),
      .cfg_channel_tiles(cfg_channel_tiles),
      .load             (begin_run),
      .advance          (tile_step),
      .pixel_last       (pixel_last),
      .channel_last     (channel_last)
  );

  always_ff @(posedge clk) begin
    if (feed_read) feed_addr_q <= feed_addr;
    if (begin_run) first_q <= cfg_feed_base;
    else if (tile_step && pixel_last) first_q <= following;
    if (pixel_load) tile_base_q <= cfg_activation_base;
    else if (pixel_advance) tile_base_q <= tile_base_q + cfg_in_words;
  end

  // Stage 1 to 2: bank addresses, rotation, mask
  wire [ACT_ADDR_W-1:0] bank_addr = tile_base_q + word_addr;
  wire [ACT_ADDR_W-1:0] next_line_addr = bank_addr + cfg_in_words;
  wire signed [COORD_W-1:0] dy = {{COORD_W - TAP_W{1'b0}}, word_dy};
  wire signed [COORD_W-1:0] dx = {{COORD_W - TAP_W{1'b0}}, word_dx};
  logic [ROT_W-1:0] rot_q;
  logic last_q;

  assign last = last_q;

  always_ff @(posedge clk) begin
    if (act_read) begin
      rot_q  <= word_rot;
      last_q <= word_last;
    end
  end

  wire [ROWS-1:0] wraps = ~({ROWS{1'b1}} << word_rot);  // banks below rot: the line is one further

  // Bank (r + rot) mod ROWS comes to row r: a rotation by 2^k mod ROWS for every bit k of rot.
  logic [ROWS*BANK_W-1:0] turned;
  always_comb begin
    turned = act_code;
    for (int k = 0; k < ROT_W; k++) begin
      if (rot_q[k]) begin
        turned = turned >> ((1 << k) % ROWS) * BANK_W |
            turned << (ROWS - (1 << k) % ROWS) * BANK_W;
      end
    end
  end

  genvar row, lane;
  generate
    for (row = 0; row < ROWS; row = row + 1) begin : g_row
      wire signed [COORD_W-1:0] y = $signed(pixel_y[row*COORD_W+:COORD_W]) + dy;
      wire signed [COORD_W-1:0] x = $signed(pixel_x[row*COORD_W+:COORD_W]) + dx;
      logic mask_q;

      assign mask[row] = mask_q;
      assign act_addr[row*ACT_ADDR_W+:ACT_ADDR_W] = wraps[row] ? next_line_addr : bank_addr;

      always_ff @(posedge clk) begin
        if (act_read) begin
          mask_q <= pixel_exists[row] && !y[COORD_W-1] && y < cfg_height && !x[COORD_W-1] &&
              x < cfg_width;
        end
      end

      for (lane = 0; lane < FEED; lane = lane + 1) begin : g_lane
        wire [CODE_W-1:0] code = turned[(row*FEED+lane)*CODE_W+:CODE_W];
        wire [CODE_W:0] operand = {cfg_signed && code[CODE_W-1], code} - cfg_zero_point;
        assign data[(row*FEED+lane)*(CODE_W+1)+:CODE_W+1] = mask_q ? operand : '0;
      end
    end
  endgenerate
endmodule

`default_nettype wire

// The firmware's image as read-only data of the host program.
  .section .rodata
  .balign 4096
  .globl sevisor_firmware_begin, sevisor_firmware_end
sevisor_firmware_begin:
  .incbin FIRMWARE_IMAGE
sevisor_firmware_end:
  .section .note.GNU-stack, "", @progbits

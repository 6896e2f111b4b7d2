import { isalAvailable, isalGzip } from './isal-decompressor.ts';
import { decompressorContract } from './testing/decompressor-contract.ts';
import { zlibGzip, zlibZstd } from './zlib-decompressor.ts';

decompressorContract(zlibGzip);
decompressorContract(isalGzip, !isalAvailable() && 'libisal.so.2 is not installed');
decompressorContract(zlibZstd);

import type { Container } from '../containers/container-store.ts';
import type { ContentInfo } from '../content/content-store.ts';
import type { Image } from '../images/image-store.ts';
import type { Lease } from '../leases/lease-manager.ts';
import type { Activation } from '../mounts/mount-manager.ts';
import type { SnapshotInfo } from '../snapshots/snapshotter.ts';
import type { FieldLookup } from './filter.ts';

/** What filters see of each kind of record: containerd's field paths. Label and annotation names may contain dots, quoted or not. */

function named(map: Readonly<Record<string, string>> | undefined, path: readonly string[]): string | undefined {
  return map?.[path.slice(1).join('.')];
}

export function activationLookup(activation: Activation): FieldLookup {
  return (path) => {
    if (path[0] === 'name') return activation.name;
    return path[0] === 'labels' ? named(activation.labels, path) : undefined;
  };
}

export function imageLookup(image: Image): FieldLookup {
  return (path) => {
    switch (path[0]) {
      case 'name':
        return image.name;
      case 'target':
        if (path[1] === 'digest') return image.target.digest;
        return path[1] === 'mediatype' ? image.target.mediaType : undefined;
      case 'labels':
        return named(image.labels, path);
      case 'annotations':
        return named(image.target.annotations, path);
      default:
        return undefined;
    }
  };
}

export function containerLookup(container: Container): FieldLookup {
  return (path) => {
    switch (path[0]) {
      case 'id':
        return container.id;
      case 'runtime':
        return path[1] === 'name' ? container.runtime.name : undefined;
      case 'image':
        return container.image || undefined;
      case 'snapshotter':
        return container.snapshotter || undefined;
      case 'snapshotkey':
        return container.snapshotKey || undefined;
      case 'sandboxid':
        return container.sandboxId || undefined;
      case 'labels':
        return named(container.labels, path);
      default:
        return undefined;
    }
  };
}

export function contentLookup(info: ContentInfo): FieldLookup {
  return (path) => {
    switch (path[0]) {
      case 'digest':
        return info.digest;
      case 'size':
        return String(info.size);
      case 'labels':
        return named(info.labels, path);
      default:
        return undefined;
    }
  };
}

export function snapshotLookup(info: SnapshotInfo): FieldLookup {
  return (path) => {
    switch (path[0]) {
      case 'kind':
        return info.kind;
      case 'name':
        return info.name;
      case 'parent':
        return info.parent || undefined;
      case 'labels':
        return named(info.labels, path);
      default:
        return undefined;
    }
  };
}

export function leaseLookup(lease: Lease): FieldLookup {
  return (path) => {
    switch (path[0]) {
      case 'id':
        return lease.id;
      case 'labels':
        return named(lease.labels, path);
      default:
        return undefined;
    }
  };
}
